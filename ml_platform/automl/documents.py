"""What AutoML decides and reports: the plan, the leaderboard and its entries, as documents that travel as JSON."""

from datetime import datetime
from typing import Literal, Self

from pydantic import Field

from ml_platform.automl.forecast_documents import ForecastPlan, ForecastResult
from ml_platform.spec.families import Parameter
from ml_platform.spec.types import Strict, Task

ColumnKind = Literal["number", "parsed_number", "category"]
SplitKind = Literal["time", "group", "stratified", "random"]
ENSEMBLE = "ensemble"


class PlanColumn(Strict):
    """One input column of the trials."""

    name: str = Field(description="Column of the table.")
    kind: ColumnKind = Field(description="How trials read it; a parsed number is stored as text.")


class Decision(Strict):
    """One thing that was decided from the data or by an option."""

    what: str = Field(description="What was decided: task, metric, split …")
    value: str = Field(description="The decision.")
    why: str = Field(description="The reason, in words.")
    option: str = Field("", description="Option of the command that decides otherwise; empty where there is none.")


class SplitPlan(Strict):
    """How rows are divided into train, validation and holdout."""

    kind: SplitKind = Field(description="By time, by group, stratified by label, or at random.")
    validation: float | None = Field(None, description="Share of all rows for validation; null for a split by time.")
    holdout: float | None = Field(None, description="Share of all rows for the holdout; null for a split by time.")
    train_until: datetime | None = Field(None, description="Last instant of training rows (UTC).")
    validation_from: datetime | None = Field(None, description="Validation rows are later than this (UTC).")
    validation_until: datetime | None = Field(None, description="Last instant of validation rows (UTC).")
    holdout_from: datetime | None = Field(None, description="Holdout rows are later than this (UTC).")


class Plan(Strict):
    """The profile of a table and all decisions: what a notebook needs to rebuild the trials."""

    name: str = Field(description="What the runs, notebooks and, once adopted, the model are called.")
    model: str | None = Field(None, description="Model of the project whose training set this is; null for a table.")
    source: str = Field(description="Table of the lake that people know, or the file it was made from.")
    table: str = Field(description="Table of the lake that trials read.")
    uri: str = Field(description="Folder or address of the Delta table.")
    version: int = Field(description="Version of the table that trials read.")
    rows: int = Field(description="Labelled rows.")
    task: Task = Field(description="What is predicted.")
    metric: str = Field(description="Metric by which trials are compared.")
    target: str = Field(description="Label column of the table.")
    positive: str | int | float | bool | None = Field(None, description="Binary: the value that stands for true.")
    classes: tuple[str | int, ...] = Field((), description="Multiclass: the classes, in the order of the scores.")
    log_target: bool = Field(False, description="Regression: whether trials learn log(1 + target).")
    columns: tuple[PlanColumn, ...] = Field(description="Inputs, in the order of the matrix.")
    sort_by: tuple[str, ...] = Field(description="Columns that give rows the same order every time.")
    time: str | None = Field(None, description="Column with the instant of each row.")
    known: str | None = Field(None, description="Column with the instant from which the label is known.")
    group: str | None = Field(None, description="Column whose rows stay together.")
    split: SplitPlan = Field(description="How rows are divided.")
    seed: int = Field(0, description="Of the split and of every trial.")
    dropped: dict[str, str] = Field(default_factory=dict, description="Column that is no input → why.")
    decisions: tuple[Decision, ...] = Field(description="What was decided, and why.")
    forecast: ForecastPlan | None = Field(None, description="How series are forecast; null for rows without a horizon.")


class Member(Strict):
    """A trial in the ensemble."""

    trial: str = Field(description="Name of the trial.")
    family: str = Field(description="Its family.")
    params: dict[str, Parameter] = Field(description="Its parameters.")
    weight: float = Field(gt=0, le=1, description="Weight of its score; weights add up to 1.")


class Entry(Strict):
    """One row of the leaderboard."""

    trial: str = Field(description="Name: family and number of the trial, or `ensemble`.")
    members: tuple[Member, ...] = Field(
        min_length=1, description="What it is made of; one with weight 1 but for ensembles."
    )
    validation: float = Field(description="Metric on the validation rows, of a fit on the training rows.")
    selection: float | None = Field(
        None, description="What it is ranked by, on the same validation rows, where that is not the metric (log-loss)."
    )
    holdout: float = Field(description="Metric on the holdout rows, of a fit on training and validation rows.")
    lower: float | None = Field(None, description="Lower bound of the holdout metric's interval; null where undefined.")
    upper: float | None = Field(None, description="Upper bound of it.")
    fit_seconds: float = Field(ge=0, description="Time of the fit on training and validation rows.")
    predict_us: float = Field(ge=0, description="Time of a prediction by the library, microseconds a row, in bulk.")
    size_bytes: int | None = Field(None, description="Size of the one ONNX graph; null where it cannot be exported.")
    not_exported: str = Field("", description="Why there is no graph.")
    notebook: str = Field(description="File of its notebook, beside the leaderboard.")

    @property
    def is_ensemble(self) -> bool:
        """Whether it blends several trials."""
        return len(self.members) > 1


class Leaderboard(Strict):
    """The result of a run: entries best first by the validation rows, with their figures on the holdout."""

    plan: Plan = Field(description="What was decided before the trials.")
    started: datetime = Field(description="Start of the run (UTC).")
    minutes: float = Field(gt=0, description="Budget.")
    seconds: float = Field(description="Time that the run took.")
    trials: int = Field(description="Trials of the search.")
    families: tuple[str, ...] = Field(description="Families that were tried.")
    higher_is_better: bool = Field(description="Direction of the metric.")
    train_rows: int = Field(description="Rows of the training part.")
    validation_rows: int = Field(description="Rows of the validation part.")
    holdout_rows: int = Field(description="Rows of the holdout part.")
    confidence: float = Field(description="Of the intervals, 0 to 1.")
    blocks: str = Field(description="What the intervals take for independent: rows, days or groups, with their number.")
    entries: tuple[Entry, ...] = Field(min_length=1, description="Best first, by the validation rows.")
    notes: tuple[str, ...] = Field((), description="What a reader should know.")
    exploration: str = Field(description="File of the data-exploration notebook.")
    forecast: ForecastResult | None = Field(None, description="What the backtest of a forecast says.")
    run_id: str = Field("", description="Run in MLflow.")
    run_url: str = Field("", description="Its address.")

    @property
    def best(self) -> Entry:
        """The first entry."""
        return self.entries[0]

    def entry(self, trial: str) -> Entry:
        """Give an entry by its name, `best` for the first (raises LookupError)."""
        if trial == "best":
            return self.best
        for entry in self.entries:
            if entry.trial == trial:
                return entry
        names = ", ".join(entry.trial for entry in self.entries)
        raise LookupError(f"{self.plan.name} has no trial '{trial}' on its leaderboard; it has: {names}")

    @classmethod
    def ranked(cls, entries: list[Entry], *, higher_is_better: bool) -> tuple[Entry, ...]:
        """Sort entries by what they are ranked by, best first; the earlier wins a tie."""

        def loss(entry: Entry) -> float:
            if entry.selection is not None:
                return entry.selection
            return -entry.validation if higher_is_better else entry.validation

        return tuple(sorted(entries, key=loss))

    def with_run(self, run_id: str, run_url: str) -> Self:
        """Give the same leaderboard with its run in MLflow."""
        return self.model_copy(update={"run_id": run_id, "run_url": run_url})
