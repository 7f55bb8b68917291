"""What a new version must not break, whatever it gains: the keys under `promotion.guardrails` in `defs.yaml`."""

from collections.abc import Iterable, Iterator
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from ml_platform.spec.types import Declared, Task

GuardrailName = Literal[
    "rows",
    "class_rows",
    "blocks",
    "slices",
    "calibration",
    "selection_rate",
    "true_positive_rate",
    "changed_decisions",
    "score_shift",
    "parity",
    "latency",
    "bundle_size",
    "views",
    "leakage",
    "replay",
]
GUARDRAILS: tuple[GuardrailName, ...] = get_args(GuardrailName)
Columns = tuple[str | tuple[str, ...], ...]

# Keys of `guardrails`, the guardrail of each, and the tasks for which it means something.
_BOUNDS: tuple[tuple[str, GuardrailName, tuple[Task, ...], str], ...] = (
    (
        "max_calibration_error",
        "calibration",
        ("binary", "multiclass"),
        "a mean is no probability; only a regression with `quantile` has one to be held to",
    ),
    ("fairness", "selection_rate", ("binary",), "only true and false are decisions that groups get at some rate"),
    (
        "max_changed_decisions",
        "changed_decisions",
        ("binary", "multiclass"),
        "a number is no decision; bound `max_score_shift` instead",
    ),
)


def column_sets(value: object) -> object:
    """Read a list of columns, of which each may be a list of columns that make groups together.

    Raises
    ------
    ValueError
        For anything else, a list without columns, or the same columns twice.

    Examples
    --------
    >>> column_sets(["origin", ["carrier", "origin"]])
    ('origin', ('carrier', 'origin'))
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"a list was wanted, e.g. [origin, [carrier, origin]]; found {value!r}")
    sets = tuple(_columns(one) for one in value)
    known: list[set[str]] = []
    for one in sets:
        if (columns := set(columns_of_set(one))) in known:
            raise ValueError(f"'{', '.join(columns_of_set(one))}' makes the same groups as an entry before; keep one")
        known.append(columns)
    return sets


def _columns(one: object) -> str | tuple[str, ...]:
    if isinstance(one, str):
        return one
    names = tuple(one) if isinstance(one, list | tuple) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"wanted a column, or a list of columns such as [carrier, origin]; found {one!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"wanted different columns; found {list(names)!r}")
    return names[0] if len(names) == 1 else names


def columns_of_set(one: str | tuple[str, ...]) -> tuple[str, ...]:
    """Columns that make the groups of one entry.

    Examples
    --------
    >>> columns_of_set("origin"), columns_of_set(("carrier", "origin"))
    (('origin',), ('carrier', 'origin'))
    """
    return (one,) if isinstance(one, str) else one


def single_columns(sets: Iterable[str | tuple[str, ...]]) -> tuple[str, ...]:
    """Every column that is named, once.

    Examples
    --------
    >>> single_columns(("origin", ("carrier", "origin")))
    ('origin', 'carrier')
    """
    return tuple(dict.fromkeys(name for one in sets for name in columns_of_set(one)))


class Fairness(Declared):
    """Groups of people, or of what stands for them, that decisions must not treat too differently."""

    columns: Columns = Field(
        min_length=1, description="Columns whose groups are compared; a list in the list makes groups of both together."
    )
    max_selection_difference: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Largest difference between two groups in the share of rows that are answered true.",
    )
    max_true_positive_difference: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Largest difference between two groups in the share of true rows that are answered true.",
    )
    min_rows: int = Field(200, ge=2, description="Groups with fewer holdout rows are named, and not judged.")
    min_positives: int = Field(
        30, ge=2, description="For the share of true rows: groups with fewer of them are named, and not judged."
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _are_columns(cls, value: object) -> object:
        return column_sets(value)

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.max_selection_difference is None and self.max_true_positive_difference is None:
            raise ValueError("wants max_selection_difference, max_true_positive_difference, or both")
        return self


class Replay(Declared):
    """A run of the challenger over requests that were really sent, before it may take the champion's place."""

    days: int = Field(7, ge=1, le=366, description="Days of logged requests, up to the newest answer.")
    max_loss: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="How much worse than the champion, in units of the gate's metric, by more than chance.",
    )


class Guardrails(Declared):
    """Bounds of a new version beyond its gain; what is not bounded is shown all the same."""

    max_calibration_error: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Largest expected calibration error: of ten equally large bins of the probability, the mean gap "
        "between what is predicted and what happens; of several classes that of the most probable one; of a quantile "
        "how far the share of labels below it is off.",
    )
    fairness: Fairness | None = Field(None, description="Binary: groups that are to be treated alike.")
    max_changed_decisions: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Largest share of holdout rows that get another answer than from the champion.",
    )
    max_score_shift: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Largest population stability index of the scores against the champion's, on its deciles; 0.1 is "
        "usually called small, 0.25 large.",
    )
    max_bundle_mb: float = Field(
        500.0, gt=0, allow_inf_nan=False, description="Largest size of the bundle that is served, in megabytes."
    )
    max_feature_strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Largest R² or AUC of a feature alone, but for those in `leakage.allow`; `leakage.max_r2` or "
        "`leakage.max_auc` when absent.",
    )
    replay: Replay | None = Field(
        None,
        description="Answers to the logged requests of the last days, scored with the labels that came; a champion "
        "without enough of both fails, unless `replay` is optional.",
    )
    optional: tuple[GuardrailName, ...] = Field(
        (), description="Guardrails that do not refuse a version where they cannot be computed."
    )

    def misapplied(self, task: Task, quantile: float | None) -> Iterator[str]:
        """Say which bounds mean nothing for a task, by their keys."""
        for key, name, tasks, why in _BOUNDS:
            if task in tasks or (name == "calibration" and quantile is not None):
                continue
            if getattr(self, key) is not None:
                yield f"promotion.guardrails.{key}: does not apply to task '{task}': {why}; leave it out"
        applying = guardrails_of(task, quantile)
        for position, wanted in enumerate(self.optional):
            if wanted not in applying:
                yield (
                    f"promotion.guardrails.optional.{position}: '{wanted}' does not apply to task '{task}', which has "
                    f"{', '.join(applying)}; leave it out"
                )


def guardrails_of(task: Task, quantile: float | None = None) -> tuple[GuardrailName, ...]:
    """Guardrails that mean something for a task.

    Examples
    --------
    >>> [name for name in GUARDRAILS if name not in guardrails_of("regression")]
    ['class_rows', 'calibration', 'selection_rate', 'true_positive_rate', 'changed_decisions']
    """
    wrong: set[GuardrailName] = {name for _, name, tasks, _ in _BOUNDS if task not in tasks}
    if "selection_rate" in wrong:
        wrong.add("true_positive_rate")
    if task == "regression":
        wrong.add("class_rows")
    if quantile is not None:
        wrong.discard("calibration")
    return tuple(name for name in GUARDRAILS if name not in wrong)
