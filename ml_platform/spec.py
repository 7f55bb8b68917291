"""What a model is, as its owner writes it in `defs.yaml`: every key typed, described and refused when misspelt."""

from collections.abc import Sequence
from datetime import date, timedelta
from difflib import get_close_matches
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ml_platform.promotion_spec import Promotion
from ml_platform.spec_types import Cron, Duration, Strict, Tag
from ml_platform.threshold_spec import Threshold

Task = Literal["binary", "multiclass", "regression"]
Family = Literal["logistic_regression", "ridge", "lightgbm"]
FieldType = Literal["string", "integer", "number", "boolean", "timestamp"]

CLASSIFICATION_METRICS = ("roc_auc", "average_precision", "log_loss", "brier", "f1", "accuracy")
REGRESSION_METRICS = ("rmse", "mae", "r2")
SCORE_COLUMNS = frozenset(
    {
        *("id", "row", "date", "request_id", "as_of", "scored_at", "model_version"),
        *("digest", "score", "prediction", "caller", "inputs", "flags", "sample_weight"),
    }
)
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "mae"})

_LISTABLE: dict[Any, type] = {"string": str, "integer": int}
_PLAIN: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


class InputField(Strict):
    """One field of a prediction request; the same column of the spine offline."""

    name: str
    type: FieldType
    description: str = ""
    unit: str | None = None
    required: bool = Field(True, description="False: may be left out or null.")
    feature: bool = Field(True, description="False: the model never sees it (an identifier, a raw timestamp).")
    minimum: float | None = Field(None, description="Smallest value, of an integer or a number.")
    maximum: float | None = Field(None, description="Largest value, of an integer or a number.")
    allowed: tuple[Any, ...] | None = Field(None, description="The only values, of a string or an integer.")
    nulls: Literal["reject", "accept", "flag"] | None = Field(
        None, description="What a null or missing value gets; `reject` where it is required, else `accept`."
    )
    default: Any = Field(None, description="Stands for a null or missing value, in training too.")
    on_violation: Literal["reject", "flag"] = Field(
        "reject", description="What a value out of range or not allowed gets: 422, or an answer that carries a flag."
    )
    example: Any = None

    @field_validator("minimum", "maximum")
    @classmethod
    def _is_bound(cls, bound: float | None, info: ValidationInfo) -> float | None:
        kind, minimum = info.data.get("type"), info.data.get("minimum")
        if bound is not None and kind not in {"integer", "number", None}:
            raise ValueError(f"a {kind} has no {info.field_name}; only integers and numbers have")
        if bound is not None and minimum is not None and info.field_name == "maximum" and bound < minimum:
            raise ValueError(f"{bound:g} is less than the minimum, {minimum:g}: no value would do")
        return bound

    @field_validator("allowed")
    @classmethod
    def _is_a_set(cls, allowed: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        if allowed is None:
            return None
        kind = info.data.get("type")
        if kind not in _LISTABLE:
            raise ValueError(f"only strings and integers can be listed, not a {kind}; numbers take minimum and maximum")
        if wrong := [value for value in allowed if type(value) is not _LISTABLE[kind]]:
            raise ValueError(f"{wrong[0]!r} is no {kind}; quote what YAML takes for something else")
        if not allowed or len(set(allowed)) < len(allowed):
            raise ValueError("wanted at least one value, each once")
        if (info.data.get("minimum"), info.data.get("maximum")) != (None, None):
            raise ValueError("say which values are allowed, or their minimum and maximum, not both")
        return allowed

    @field_validator("nulls")
    @classmethod
    def _agrees_with_required(cls, nulls: str | None, info: ValidationInfo) -> str | None:
        if nulls == "reject" and not info.data.get("required", True):
            raise ValueError("'reject' contradicts required: false; leave one of the two out")
        return nulls

    @field_validator("default", "example")
    @classmethod
    def _keeps_the_contract(cls, value: Any, info: ValidationInfo) -> Any:
        kind, allowed = info.data.get("type"), info.data.get("allowed")
        minimum, maximum = info.data.get("minimum"), info.data.get("maximum")
        if value is None or kind is None:
            return value
        if info.field_name == "default":
            if info.data.get("nulls") is not None:
                raise ValueError("stands for a null already: leave `nulls` out")
            if kind == "timestamp":
                raise ValueError("a timestamp has none: no instant is right for all requests")
        if kind in _PLAIN and (not isinstance(value, _PLAIN[kind]) or isinstance(value, bool) != (kind == "boolean")):
            raise ValueError(f"{value!r} is no {kind}")
        if allowed is not None and value not in allowed:
            near = get_close_matches(str(value), [str(one) for one in allowed], n=1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{value!r} is not allowed{meant} Allowed: {', '.join(map(str, allowed))}")
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            raise ValueError(f"{value!r} is out of the field's own range")
        return value

    @property
    def rejects_null(self) -> bool:
        """Whether a null or missing value is refused."""
        return self.default is None and (self.nulls == "reject" or (self.nulls is None and self.required))


class Lookup(Strict):
    """Features taken from one feature view, as of the spine's timestamp."""

    view: str
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
    def called(self) -> str:
        """What its features are called by."""
        return self.name or self.view


def check_lookups(lookups: Sequence[Lookup]) -> None:
    """Refuse look-ups whose features would have the same names (raises ValueError)."""
    for lookup in lookups:
        if twice := sorted({name for name in lookup.features if lookup.features.count(name) > 1}):
            raise ValueError(f"lookups: features {twice} of '{lookup.called}' more than once")
    called = [lookup.called for lookup in lookups]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise ValueError(
            f"lookups: {twice} more than once: list the features of one look-up together, or give it a `name` of its "
            "own if it has other keys"
        )


class Split(Strict):
    """Time-ordered split: … train | gap | validation | gap | holdout, ending at the newest available label."""

    holdout: Duration = Field(timedelta(days=28), description="Newest rows, for evaluation only.")
    validation: Duration = Field(timedelta(days=14), description="Rows before the holdout, for tuning.")
    gap: Duration = Field(timedelta(days=1), description="Rows left out between two parts.")
    history: Duration | None = Field(None, description="How far back training rows go; all when absent.")


class Leakage(Strict):
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


class InputChecks(Strict):
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


class Tuning(Strict):
    """The search over families and their parameters."""

    trials: int = Field(8, ge=1, description="Trials per family.")
    timeout_minutes: float | None = Field(None, gt=0, description="Budget per family.")
    sample_rows: int | None = Field(None, ge=100, description="Newest training rows used in trials; all when absent.")
    seed: int = 0
    executor: Literal["local", "ray"] = "local"


class Scoring(Strict):
    """Batch scoring, one Dagster partition per UTC day of the timestamp."""

    start: date = Field(description="First day that can be scored.")
    end: date | None = Field(None, description="Last day, for data that has ended; open when absent.")
    daily_at: str | None = Field(
        "01:30",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="When (UTC) the day before is scored; null for never.",
    )


class Monitoring(Strict):
    """What is watched once the model serves."""

    schedule: Cron | None = Field(
        "15 * * * *", description="Cron (UTC) of ingesting the log and watching; null for none."
    )
    window: Duration = Field(timedelta(days=7), description="Span of scored rows compared with the training data.")
    min_rows: int = Field(500, ge=1, description="Smaller windows are reported as such, not judged.")
    significance: float = Field(
        0.01, gt=0, lt=1, description="Share of reports on undrifted rows in which some column may count as drifted."
    )
    distance: float = Field(
        0.1,
        gt=0,
        description="Smallest distance that counts, with a significant test: Cohen's h or Jensen-Shannon, and half of "
        "it as Kolmogorov-Smirnov's D.",
    )
    min_drift_importance: float = Field(
        0.15,
        ge=0,
        le=1,
        description="Share of the feature importance that must have drifted to alarm.",
    )
    prediction_drift: bool = Field(True, description="Drift of the prediction alone raises the alarm.")
    labels_final_after: Duration | None = Field(
        None,
        description="Age from which no label comes or changes any more, so that older days are not measured again; "
        "all are, whenever a table of the spine changed, when absent.",
    )
    min_metric: float | None = Field(
        None, description="Promotion metric on labelled rows below (above) which an alert is raised."
    )


class Skew(Strict):
    """How features that serving computed are compared with what the lake says of their instants."""

    schedule: Cron | None = Field("45 3 * * *", description="Cron (UTC); null for none.")
    window: Duration = Field(timedelta(days=1), description="Span of answers compared, up to the newest logged.")
    sample_rows: int = Field(1000, ge=1, description="Logged rows compared, drawn by chance.")
    tolerance: float = Field(1e-6, ge=0, description="Relative difference of numbers that still counts as equal.")
    max_share: float = Field(
        0.01, ge=0, lt=1, description="Share of rows in which a feature may differ; more is skew once it is no chance."
    )
    min_rows: int = Field(30, ge=1, description="Fewer logged rows are compared and shown, not judged.")
    lag: Duration = Field(timedelta(hours=1), description="How long the online store may lack a row that is known.")


class InferenceLogging(Strict):
    """What of its answers serving logs; monitoring sees no more than that."""

    sample: float = Field(1.0, gt=0, le=1, description="Share of the requests, chosen by a hash of their ids.")
    redact: tuple[str, ...] = Field((), description="Inputs that never reach the log, nor what is computed from them.")
    hash: tuple[str, ...] = Field((), description="Strings and integers of which only an HMAC is logged.")


class Retraining(Strict):
    """What starts training again."""

    schedule: Cron | None = Field("0 6 * * 1", description="Cron, UTC; null for none.")
    on_drift: bool = True
    on_performance: bool = True
    cooldown: Duration = Field(timedelta(hours=24), description="Quiet time after a triggered run.")


class ModelSpec(Strict):
    """One model, from its rows to its retraining.

    Raises
    ------
    pydantic.ValidationError
        For an unknown key, a wrong value or parts that contradict each other; `spec_yaml` adds file and line.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{1,62}$")
    description: str
    owner: str
    task: Task
    target: str = Field(description="Label column of the spine.")
    target_unit: str | None = Field(None, description="Unit of a regression's target, shown with predictions.")
    spine: str = Field(description="SQL file beside defs.yaml: one row per thing to predict, over the lake's tables.")
    id: str = Field(description="Column that identifies a row of the spine and of the scores.")
    timestamp: str = Field(description="Column with the instant of prediction (UTC): features are taken as of it.")
    label_available_at: str = Field(description="Column with the instant from which the label is known (UTC).")
    inputs: tuple[InputField, ...] = Field(min_length=1)
    request_features: str | None = Field(None, description="Python file beside defs.yaml with `REQUEST_FEATURES`.")
    lookups: tuple[Lookup, ...] = ()
    sample: float = Field(1.0, gt=0, le=1, description="Share of the labelled rows to train on, by a hash of the id.")
    split: Split = Split()
    leakage: Leakage = Leakage()
    input_checks: InputChecks = InputChecks()
    families: tuple[Family, ...] = Field(min_length=1)
    tuning: Tuning = Tuning()
    threshold: Threshold = Field(
        Threshold(),
        description="Binary: the probability from which the prediction is true. A number from 0 to 1, `best_f1`, or "
        "`cost: {false_positive: …, false_negative: …}`; the latter two are chosen on the validation rows.",
    )
    promotion: Promotion = Promotion()
    scoring: Scoring
    monitoring: Monitoring = Monitoring()
    skew: Skew = Skew()
    retraining: Retraining = Retraining()
    inference_log: InferenceLogging = InferenceLogging()
    tags: dict[str, Tag] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [field.name for field in self.inputs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"inputs: {twice} declared more than once")
        if taken := sorted({field.name for field in self.inputs if field.feature} & SCORE_COLUMNS):
            raise ValueError(
                f"inputs: {taken} are columns of the scores' own; name them otherwise in the spine (… AS …)"
            )
        wrong = {"regression": {"logistic_regression"}}.get(self.task, {"ridge"}) & set(self.families)
        if wrong:
            raise ValueError(f"families: {sorted(wrong)} cannot do task '{self.task}'")
        allowed = REGRESSION_METRICS if self.task == "regression" else CLASSIFICATION_METRICS
        if self.promotion.metric and self.promotion.metric not in allowed:
            raise ValueError(
                f"promotion.metric: '{self.promotion.metric}' is not one of {', '.join(allowed)} for {self.task}"
            )
        if self.task != "binary" and self.threshold != Threshold():
            raise ValueError(f"threshold: only a binary model has one, not task '{self.task}'; leave it out")
        check_lookups(self.lookups)
        return self

    @property
    def metric(self) -> str:
        """Metric that tuning maximises (or minimises) and the gate compares."""
        default = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
        return self.promotion.metric or default[self.task]

    @property
    def higher_is_better(self) -> bool:
        """Direction of `metric`."""
        return self.metric not in LOWER_IS_BETTER
