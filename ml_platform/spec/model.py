"""What a model is, as its owner writes it in `defs.yaml`: every key typed, described and refused when misspelt."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ml_platform.spec.budget import ModelBudget
from ml_platform.spec.class_weights import ClassWeights
from ml_platform.spec.families import BUILT_IN, family_info
from ml_platform.spec.inputs import InputField
from ml_platform.spec.monitoring import InferenceLogging, Monitoring, Recalibration, Retraining, Skew
from ml_platform.spec.objective_rules import check_objective
from ml_platform.spec.promotion import Promotion
from ml_platform.spec.stream import Stream
from ml_platform.spec.threshold import Threshold
from ml_platform.spec.training import Training, check_distributed
from ml_platform.spec.types import Declared, Duration, PositiveDuration, Tag, Task

CLASSIFICATION_METRICS = ("roc_auc", "average_precision", "log_loss", "brier", "f1", "accuracy")
REGRESSION_METRICS = ("rmse", "rmsle", "mae", "r2")
QUANTILE_METRICS = ("pinball", "coverage")
ALL_METRICS = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS, *QUANTILE_METRICS)
SCORE_COLUMNS = frozenset(
    {
        *("id", "row", "date", "request_id", "as_of", "scored_at", "model_version"),
        *("digest", "score", "prediction", "caller", "inputs", "flags", "sample_weight"),
    }
)
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "rmsle", "mae", "pinball"})


class Lookup(Declared):
    """Features taken from one feature view, as of the spine's timestamp."""

    view: str = Field(description="Name of a feature view of the project.")
    name: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$",
        description="What its features are called by (`<name>__<feature>`), for a view that is looked up twice, "
        "e.g. the weather here and there; the view's name when absent.",
    )
    features: tuple[str, ...] = Field((), description="Names to take; all of the view's when empty.")
    keys: dict[str, str] = Field(
        default_factory=dict, description="View's entity column → column of the spine, where the names differ."
    )
    knowledge_time: bool = Field(
        False, description="Use only rows whose `created` is not after the timestamp, so that no later backfill leaks."
    )

    @property
    def alias(self) -> str:
        """What its features are called by."""
        return self.name or self.view


def check_lookups(lookups: Sequence[Lookup]) -> None:
    """Refuse look-ups whose features would have the same names (raises ValueError)."""
    for lookup in lookups:
        if twice := sorted({name for name in lookup.features if lookup.features.count(name) > 1}):
            raise ValueError(f"lookups: features {twice} of '{lookup.alias}' more than once")
    called = [lookup.alias for lookup in lookups]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise ValueError(
            f"lookups: {twice} more than once: list the features of one look-up together, or give it a `name` of its "
            "own if it has other keys"
        )


class Split(Declared):
    """Time-ordered split: … train | gap | validation | gap | holdout, ending at the newest available label."""

    holdout: PositiveDuration = Field(timedelta(days=28), description="Newest rows, for evaluation only.")
    validation: PositiveDuration = Field(timedelta(days=14), description="Rows before the holdout, for tuning.")
    gap: Duration = Field(timedelta(days=1), description="Rows left out between two parts.")
    history: PositiveDuration | None = Field(None, description="How far back training rows go; all when absent.")


class Leakage(Declared):
    """What is too good to be true: what knows the label stops the training set, what may know it is shown."""

    max_r2: float = Field(
        0.999, gt=0, le=1, description="R² of one feature alone from which it is a leak (regression)."
    )
    max_auc: float = Field(
        0.999, gt=0.5, le=1, description="AUC of one feature, or of a few together, from which it is a leak."
    )
    warn_r2: float = Field(0.95, gt=0, le=1, description="R² of one feature alone from which it is suspect.")
    warn_auc: float = Field(
        0.95, gt=0.5, le=1, description="AUC of one feature, or of a few together, from which it is suspect."
    )
    pairs: bool = Field(True, description="Also look for up to four features that give the label together.")
    allow: tuple[str, ...] = Field((), description="Features known to be sound, e.g. the last value of a slow series.")
    sample_rows: int = Field(20_000, ge=100, description="Rows that are looked at, drawn by chance.")


class InputChecks(Declared):
    """When a training set's inputs are fresh and whole enough to train on."""

    max_lag: Duration = Field(
        timedelta(0),
        description="How old a change of a source may be that a feature view was not computed from yet; 0 for none.",
    )
    max_null_increase: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Rise of a feature's share of nulls since the last accepted set that is a jump.",
    )
    significance: float = Field(
        0.001, gt=0, lt=1, description="Family-wise error of the test for a jump, over all features (Bonferroni)."
    )
    min_rows: int = Field(200, ge=30, description="Rows below which shares of nulls are not compared.")


class Tuning(Declared):
    """The search over families and their parameters."""

    trials: int | None = Field(
        None, ge=1, description="Trials of each family, at most; 8 where `total_trials` is absent too."
    )
    total_trials: int | None = Field(
        None,
        ge=1,
        description="Trials of all families together, at most: the search gives more of them to the families that do "
        "better. `trials` for each family when absent.",
    )
    timeout_minutes: float | None = Field(
        None, gt=0, description="Time of each family's trials: no further one begins after it."
    )
    total_timeout_minutes: float | None = Field(
        None, gt=0, description="Time of the whole search: no further trial begins after it."
    )
    pruning: bool = Field(
        True,
        description="Try each trial on an eighth of the rows first, and end it there when it is in the worse half of "
        "its family. Only where that eighth has 5,000 rows or more and a family has 8 trials or more.",
    )
    sample_rows: int | None = Field(None, ge=100, description="Newest training rows used in trials; all when absent.")
    seed: int = Field(
        0, description="Of the search and of the training: the same rows, versions and seed give the same model."
    )
    executor: Literal["auto", "local", "ray"] = Field(
        "auto",
        description="Where trials run: in this process, or as tasks on Ray (the extra `ray`). `auto` takes Ray where "
        "it is installed and either `RAY_ADDRESS` names a cluster or a trial has 20 million numbers to read or more.",
    )

    @property
    def trials_per_family(self) -> int | None:
        """Most trials of one family; None where only their total is bounded."""
        return 8 if self.trials is None and self.total_trials is None else self.trials

    def most_trials(self, families: int) -> int:
        """Most trials of a search over a number of families."""
        each = self.trials_per_family
        bounds = [self.total_trials, None if each is None else each * families]
        return min(bound for bound in bounds if bound is not None)


class Scoring(Declared):
    """Batch scoring, one Dagster partition per UTC day of the timestamp."""

    start: date = Field(ge=date(1678, 1, 1), description="First day that can be scored.")  # no request is earlier
    end: date | None = Field(None, description="Last day, for data that has ended; open when absent.")
    daily_at: str | None = Field(
        "01:30",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="When (UTC) the day before is scored; null for never.",
    )
    executor: Literal["auto", "local", "ray"] = Field(
        "auto",
        description="Where parts of half a million rows are scored: in the asset's process, or as tasks on Ray (the "
        "extra `ray`). `auto` takes Ray where it is installed and `RAY_ADDRESS` names a cluster.",
    )

    @field_validator("end")
    @classmethod
    def _is_after_the_start(cls, end: date | None, info: ValidationInfo) -> date | None:
        start = info.data.get("start")
        if end is not None and start is not None and end < start:
            raise ValueError(f"{end} is before the start, {start}: no day could be scored")
        return end


class ModelSpec(Declared):
    """One model, from its rows to its retraining.

    Raises
    ------
    pydantic.ValidationError
        For an unknown key, a wrong value or parts that contradict each other; `spec_yaml` adds file and line.
    """

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{1,62}$",
        description="Lower case, digits and underscores. Assets, tables and the endpoint are called by it.",
    )
    description: str = Field(description="What is predicted, for whom, and how long before it happens.")
    owner: str = Field(description="Who answers for it and is told: an e-mail address, or team:<name>.")
    task: Task = Field(description="What is predicted: true or false, one of several classes, or a number.")
    target: str = Field(description="Label column of the spine.")
    target_unit: str | None = Field(None, description="Unit of a regression's target, shown with predictions.")
    spine: str = Field(description="SQL file beside defs.yaml: one row per thing to predict, over the lake's tables.")
    id: str = Field(description="Column that identifies a row of the spine and of the scores.")
    timestamp: str = Field(description="Column with the instant of prediction (UTC): features are taken as of it.")
    label_available_at: str = Field(description="Column with the instant from which the label is known (UTC).")
    inputs: tuple[InputField, ...] = Field(
        min_length=1,
        description="What a request sends: columns of the spine that are features, or that identify the row.",
    )
    card: str | None = Field(
        None,
        description="Markdown file beside defs.yaml with words of people for the model card: purpose, limits, risks.",
    )
    request_features: str | None = Field(None, description="Python file beside defs.yaml with `REQUEST_FEATURES`.")
    lookups: tuple[Lookup, ...] = Field(
        (), description="What the platform knows by itself, as of the timestamp; none when empty."
    )
    weight: str | None = Field(
        None,
        description="Column of the spine that says how much a row counts in fitting: finite, not negative, not null. "
        "Metrics, intervals and the gate count every row alike.",
    )
    class_weights: ClassWeights = Field(
        None,
        description="How much the rows of a class count in fitting: `balanced`, so that all classes count alike "
        "together, or `{class: weight}`, 1 where not named. Probabilities are corrected for it.",
    )
    quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Regression: the quantile of the target that is predicted, e.g. 0.9; the mean when absent.",
    )
    monotone: dict[str, Literal["increasing", "decreasing"]] = Field(
        default_factory=dict,
        description="Numeric feature → whether scores may only rise or only fall with it: inputs, request features, "
        "`<view>__<feature>`.",
    )
    sample: float = Field(1.0, gt=0, le=1, description="Share of the labelled rows to train on, by a hash of the id.")
    split: Split = Field(
        Split(), description="How the labelled rows are divided by time, for training, search and evaluation."
    )
    leakage: Leakage = Field(Leakage(), description="From when on a feature is too good to be true.")
    input_checks: InputChecks = Field(
        InputChecks(), description="When the inputs are fresh and whole enough to train on."
    )
    families: tuple[str, ...] = Field(
        min_length=1,
        description="Kinds of estimators that are tried: the best by the gate's metric is taken. "
        f"{', '.join(f'`{name}`' for name in BUILT_IN)}, or the dotted path of a class of your own.",
    )
    tuning: Tuning = Field(Tuning(), description="How long the search is, and where it runs.")
    training: Training = Field(
        Training(), description="Where the final training and the refit run, and on how many workers."
    )
    budget: ModelBudget = Field(
        ModelBudget(), description="What the model may spend in a period, and what each step of its runs may use."
    )
    threshold: Threshold = Field(
        Threshold(),
        description="Binary: the probability from which the prediction is true. A number from 0 to 1, `best_f1`, or "
        "`cost: {false_positive: …, false_negative: …}`; the latter two are chosen on the validation rows.",
    )
    calibration: Literal["platt", "none"] = Field(
        "none",
        description="Classifier: `platt` maps probabilities so that they are what they say, by two numbers that are "
        "learned on the validation rows and are part of the exported graph; with several classes, by one slope for all "
        "and a shift for each. `none` leaves them as the family gives them.",
    )
    promotion: Promotion = Field(Promotion(), description="When a new version may serve.")
    scoring: Scoring = Field(description="Which days are scored in batch, and when.")
    stream: Stream | None = Field(
        None, description="Messages that are answered as they come, e.g. of Kafka; none when absent."
    )
    monitoring: Monitoring = Field(
        Monitoring(), description="What is watched once the model serves, and when it alarms."
    )
    skew: Skew = Field(Skew(), description="How served features are compared with the lake's.")
    recalibration: Recalibration = Field(
        Recalibration(), description="How probabilities and intervals follow the labels that come."
    )
    retraining: Retraining = Field(Retraining(), description="What starts training again.")
    inference_log: InferenceLogging = Field(
        InferenceLogging(), description="What of its answers is logged; everything by default."
    )
    review_every: PositiveDuration | None = Field(
        None,
        description="How often people look at it again, e.g. 90 days: its page says when that is due, counted from the "
        "tag `reviewed`, else from the last change of what serves. None is planned when absent.",
    )
    tags: dict[str, Tag] = Field(
        default_factory=dict,
        description="Tags of its assets, runs and versions, of at most 63 letters, digits, `_`, `.` and `-`.",
    )

    @field_validator("families")
    @classmethod
    def _are_known(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        for name in families:
            family_info(name)
        return families

    @field_validator("training")
    @classmethod
    def _families_can(cls, training: Training, info: ValidationInfo) -> Training:
        check_distributed(training, info.data.get("families", ()))
        return training

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [field.name for field in self.inputs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"inputs: {twice} declared more than once")
        if reserved := sorted({field.name for field in self.inputs if field.feature} & SCORE_COLUMNS):
            raise ValueError(
                f"inputs: {reserved} are columns of the scores' own; name them otherwise in the spine (… AS …)"
            )
        if misapplied := list(self.promotion.guardrails.misapplied(self.task, self.quantile)):
            raise ValueError("\n".join(misapplied))
        if wrong := sorted(name for name in self.families if self.task not in family_info(name).tasks):
            able = ", ".join(info.name for info in BUILT_IN.values() if self.task in info.tasks)
            raise ValueError(f"families: {wrong} cannot do task '{self.task}'; of the engine's families can: {able}")
        if self.tuning.total_trials and self.tuning.total_trials < len(self.families):
            raise ValueError(
                f"tuning.total_trials: {self.tuning.total_trials} is less than one trial for each of the "
                f"{len(self.families)} families, which are all tried with their default parameters first"
            )
        check_objective(self)
        allowed: tuple[str, ...] = REGRESSION_METRICS if self.task == "regression" else CLASSIFICATION_METRICS
        if self.quantile is not None:
            allowed = ("pinball",)  # the others are best of another answer than the quantile
        if self.promotion.metric and self.promotion.metric not in allowed:
            what = self.task if self.quantile is None else "a quantile"
            raise ValueError(
                f"promotion.metric: '{self.promotion.metric}' is not one of {', '.join(allowed)} for {what}"
            )
        if self.promotion.baseline and (self.task != "regression" or self.quantile is not None):
            other = f"task '{self.task}'" if self.quantile is None else "a quantile"
            raise ValueError(f"promotion.baseline: wants a regression of the mean or median, not {other}; leave it out")
        if self.task != "binary" and self.threshold != Threshold():
            raise ValueError(f"threshold: only a binary model has one, not task '{self.task}'; leave it out")
        if self.task == "regression" and self.calibration != "none":
            raise ValueError("calibration: only a classifier has probabilities, not task 'regression'; leave it out")
        check_lookups(self.lookups)
        if self.stream is not None and (others := sorted(set(self.stream.mapping.inputs) - set(names))):
            raise ValueError(
                f"stream.mapping.inputs: {others} are no inputs of the model; there are {', '.join(names)}"
            )
        return self

    @property
    def metric(self) -> str:
        """Metric that tuning maximises (or minimises) and the gate compares."""
        if self.quantile is not None:
            return "pinball"
        default = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
        return self.promotion.metric or default[self.task]

    @property
    def higher_is_better(self) -> bool:
        """Direction of `metric`."""
        return self.metric not in LOWER_IS_BETTER
