"""`cost.yaml` beside the project's `pyproject.toml`: rates, budgets, limits of steps, policies; all of it optional."""

from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ml_platform.atomic_files import FileStamp, file_stamp
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.spec.budget import Budget, StepLimits
from ml_platform.spec.types import Declared, PositiveDuration
from ml_platform.yaml_documents import Document, Location, SpecError, SpecProblem, documents, explain

FILE = "cost.yaml"


class Rates(Declared):
    """What a unit costs, in the file's currency, from a day on."""

    since: date = Field(date(1970, 1, 1), description="First day (UTC) of these rates; none before it if absent.")
    cpu_hour: float = Field(0.04, ge=0, description="One hour of one CPU.")
    memory_gib_hour: float = Field(0.005, ge=0, description="One GiB of memory for an hour.")
    read_gib: float = Field(0.0, ge=0, description="One GiB read.")
    written_gib: float = Field(0.0, ge=0, description="One GiB written.")
    storage_gib_month: float = Field(0.02, ge=0, description="One GiB stored for 30 days.")


class NamedBudget(Budget):
    """A budget of the project: of a model, a team or a job, or of everything where none is named."""

    model: str | None = Field(None, description="Name of the model whose use counts.")
    team: str | None = Field(None, description="Owner whose assets' use counts: `team:<name>` or an e-mail address.")
    job: str | None = Field(None, description="Name of the Dagster job whose runs' use counts.")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        named = [name for name in ("model", "team", "job") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)}: name one of them; write a budget for each")
        if self.action == "queue" and self.job is not None:
            raise ValueError(
                "action: `queue` needs a model or a team, whose training assets are pools in Dagster; "
                "write `refuse` for a job"
            )
        return self


class Policies(Declared):
    """What the definitions of the project may ask for; checked when they load."""

    schedule_interval: PositiveDuration | None = Field(
        None, description="No schedule may start more often than this, e.g. '1 hour'."
    )
    executors: tuple[Literal["auto", "local", "ray"], ...] | None = Field(
        None, description="What `tuning.executor` and `training.executor` of models may be."
    )
    training_workers: int | None = Field(None, ge=1, description="Most `training.workers` of a model.")
    trials: int | None = Field(None, ge=1, description="Most trials of a model's search, over all its families.")
    require_budget: bool = Field(False, description="Whether each model must have `budget:` in its `defs.yaml`.")


class CostConfig(Declared):
    """The whole file."""

    currency: str = Field("EUR", pattern=r"^[A-Z]{3}$", description="ISO 4217 code, shown with prices.")
    rates: Rates = Field(Rates(), description="What a unit costs, from the day `since` on.")
    earlier_rates: tuple[Rates, ...] = Field(
        (), description="What it cost before, so that a change of rates leaves earlier days as they were."
    )
    budgets: dict[str, NamedBudget] = Field(default_factory=dict, description="Budgets by name.")
    step_limits: StepLimits = Field(StepLimits(), description="What any step of any run may use.")
    policies: Policies = Field(Policies(), description="What definitions may ask for.")

    @model_validator(mode="after")
    def _rates_differ(self) -> Self:
        begins = [rates.since for rates in self.rate_history]
        if len(set(begins)) < len(begins):
            raise ValueError("earlier_rates: two rates begin on the same day; give each a `since` of its own")
        return self

    @property
    def rate_history(self) -> tuple[Rates, ...]:
        """Rates in the order of their days."""
        return tuple(sorted((self.rates, *self.earlier_rates), key=lambda one: one.since))

    @property
    def current_rates(self) -> Rates:
        """The newest rates."""
        return self.rate_history[-1]


def cost_file() -> Path | None:
    """Return the project's `cost.yaml`; None where it has none."""
    try:
        path = current_project().root / FILE
    except ProjectNotFound:
        return None
    return path if path.is_file() else None


def cost_config(path: Path | None = None) -> CostConfig:
    """Return what the project's `cost.yaml` says, or what holds without one.

    Raises
    ------
    SpecError
        With file, line and key of every mistake.
    """
    path = path or cost_file()
    if path is None:
        return CostConfig()
    return _load(path, file_stamp(path))


@lru_cache(maxsize=4)
def _load(path: Path, _stamp: FileStamp) -> CostConfig:
    document = _document(path)
    try:
        return CostConfig.model_validate(document.data or {})
    except ValidationError as error:
        raise SpecError(
            [
                _problem(document, tuple(one["loc"]), message)
                for one in error.errors()
                for message in explain(CostConfig, one).split("\n")
            ]
        ) from None


def _document(path: Path) -> Document:
    texts = documents(path)
    if len(texts) != 1 or not isinstance(texts[0].data, Mapping | None):
        raise SpecError([SpecProblem(path, 1, FILE, "wanted one mapping: `currency:`, `rates:`, `budgets:`, …")])
    return texts[0]


def _problem(document: Document, location: Location, message: str) -> SpecProblem:
    problem = document.problem(location, message)
    return SpecProblem(problem.path, problem.line, ".".join(map(str, location)) or FILE, message)


def place_of(location: Location, path: Path | None = None) -> str:
    """Return `file:line: key` of a key of the file, for messages that say where to change it."""
    path = path or cost_file()
    if path is None:
        return f"{FILE}: {'.'.join(map(str, location))}"
    problem: Any = _document(path).problem(location, "")
    return f"{problem.path}:{problem.line}: {'.'.join(map(str, location))}"
