"""The manifest of a release bundle: all that serving must know about a model, as plain data.

A bundle is a folder named by its digest: `manifest.json`, `model.onnx`, `golden.json`. The ONNX graph takes one input
`X`, a float64 matrix (rows × features) in the order of `Manifest.features`, and gives one output `score`, float64: the
probability of the positive class (rows,) for binary, probabilities (rows × classes) for multiclass, the value (rows,)
for regression. Everything before that matrix (types, derived features, look-ups, category codes) is in the manifest.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ml_platform.formats import MANIFEST
from ml_platform.spec.input_rules import FieldType, RuleValues, Violated

MISSING_CODE = -2.0  # category code of a null
UNSEEN_CODE = -1.0  # category code of a value that training did not see, or saw too rarely to learn from

Label = str | int  # a class of a multiclass target, as the training rows have it
Action = Literal["promotion", "recalibration", "canary", "rollback", "traffic", "withdrawal", "retirement"]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the manifest's parts."""


class Input(RuleValues, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One field of a request: name, type, the keys of its rules, and these."""

    description: str = ""
    unit: str | None = None
    example: Any = None
    required: bool = True
    default: str | int | float | bool | None = None  # what stands for a null
    flagged: tuple[Violated, ...] = ()  # answered with a flag; anything else that breaks the contract is refused


class Derived(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One feature computed from the request: `tree` is a portable expression (`features.expressions.compile`)."""

    name: str
    type: FieldType
    tree: Any
    description: str = ""
    unit: str | None = None


class ViewLookup(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Features read from the online store for each row, under the names they have in `Manifest.features`."""

    view: str
    view_hash: str
    keys: dict[str, str]  # the view's entity column → name of an input or derived feature
    features: tuple[str, ...]
    ttl_seconds: float | None = None
    knowledge_time: bool = False  # offline: only rows that were written by then; serving has no others
    streamed: bool = False  # whether a stream keeps the view up to date, so that serving reads its timelines too


def feature_of(view: str, column: str) -> str:
    """Name that a looked-up column has in its view.

    Columns are `<view>__<feature>`, or `<name>__<feature>` where the look-up has a name, which has no `__` in it.

    Examples
    --------
    >>> feature_of("weather", "weather__wind__max"), feature_of("weather", "there__wind__max")
    ('wind__max', 'wind__max')
    """
    prefix = f"{view}__"
    return column.removeprefix(prefix) if column.startswith(prefix) else column.partition("__")[2] or column


class Feature(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One column of the model's matrix."""

    name: str
    kind: Literal["numeric", "categorical"]
    source: str  # "input", "derived" or "view:<name>"
    categories: tuple[str, ...] | None = None  # code of a category = its position
    importance: float = 0.0  # share of the model's total importance, sums to 1
    description: str = ""
    unit: str | None = None


class InferenceLogPolicy(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which part of a model's answers goes into the inference log."""

    sample: float = 1.0  # share of the requests, chosen by a hash of their ids
    redact: tuple[str, ...] = ()  # inputs that never reach the log, nor features computed from them
    hash: tuple[str, ...] = ()  # inputs of which an HMAC does


class HoldoutError(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How uncertain the promotion metric of the holdout is: what monitoring holds a window's metric against."""

    metric: str
    by_day: float  # standard error, days taken for independent of one another
    by_row: float  # standard error, rows taken for independent of one another: smaller where days differ
    days: float  # equally large days that would say as much


class Calibration(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Platt scaling that is part of the graph: log-odds times `slope` plus a shift; what explanations need of it.

    With several classes, log-probabilities take the place of log-odds: one slope, and a shift for each class.
    """

    slope: float
    shifts: tuple[float, ...]  # one for binary, one per class for multiclass
    floor: float  # probabilities are held between this and 1 minus it before their logarithm is taken
    fitted_on: Literal["validation", "labelled"]  # rows of the training set, or answers whose labels came later
    fitted_from: str  # ISO 8601, UTC
    fitted_until: str
    rows: int
    error_before: float  # expected calibration error on these rows without it
    error_after: float


class Reliability(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Rows of about the same probability, new to the model: what was said of them, and what happened."""

    predicted: float  # mean probability
    observed: float  # share of them that were what they were said to be
    rows: int


class Recalibrated(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The version whose probabilities were mapped anew, without training: everything else is as it was."""

    base_version: int  # the one that was trained
    base_digest: str
    replaced_version: int  # the one that served when this was made
    replaced_digest: str


class Conformal(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How far answers were from labels that came later: what intervals and prediction sets are made of.

    A regression's interval at `levels[i]` is the score plus `lower[i]` to the score plus `upper[i]`. A classifier's set
    has every class of at least the probability `cutoffs[i]`.
    """

    levels: tuple[float, ...]  # rising
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    cutoffs: tuple[float, ...] = ()
    rows: int
    first: str  # ISO 8601, UTC: of the rows that it was computed on
    last: str
    coverage: float | None = None  # share of later rows whose label an interval of 0.9 held
    width: float | None = None  # mean width of these intervals, or number of classes in these sets


class Judged(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The model that the gate compared, of which this one is the refit on all labelled rows."""

    digest: str
    model_digest: str
    trained_until: str  # ISO 8601, UTC
    holdout_from: str  # of the rows that the metrics in the manifest were measured on
    holdout_until: str


class Imported(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where a model comes from that was not trained here: which rows it has learned from is not known here."""

    by: str  # user who imported it
    source: str  # file or MLflow URI
    flavor: str
    digest: str  # SHA-256 of the file
    library: str  # that read it, with its version
    summary: str  # what the file holds, in a few words
    origin: str = ""  # what MLflow says of its training
    trained_until_stated: bool = False  # by who imported it; else every labelled row of that day may have been seen
    trusted: bool = False  # whether the file could run code, and was allowed to


class Workers(Struct, frozen=True, forbid_unknown_fields=True):
    """Over how many processes the training was spread."""

    count: int
    cpus: int  # of each
    executor: Literal["cluster", "local"]  # where they ran: on a cluster of Ray, or on one machine


class Provenance(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which data and code made the model."""

    tables: dict[str, int]  # lake table → version read
    training_set: str
    training_set_version: int
    trained_from: str  # ISO 8601, UTC
    trained_until: str
    training_rows: int
    code_version: str  # of the project
    engine_version: str = ""
    mlflow_run_id: str | None = None
    dagster_run_id: str | None = None
    judged: Judged | None = None  # where this is the refit of a model that the gate judged
    workers: Workers | None = None  # where several trained it together
    imported: Imported | None = None  # then `training_set` is what it was judged on, and `training_rows` 0


class Manifest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A model as serving sees it; `version` is given by the registry and lives in the endpoint document, not here."""

    format: int = MANIFEST.reads[-1]
    model: str
    model_digest: str  # of the ONNX graph and the signature alone: equal for equal training, whenever it ran
    task: Literal["binary", "multiclass", "regression"]
    description: str
    owner: str
    family: str
    id: str | None  # input that names a row, echoed and logged
    as_of: str | None  # input or derived timestamp that look-ups are made as of; the current time when absent or null
    inputs: tuple[Input, ...]
    derived: tuple[Derived, ...]
    lookups: tuple[ViewLookup, ...]
    features: tuple[Feature, ...]
    classes: tuple[Label, ...] = ()  # multiclass: in the order of the scores
    threshold: float | None = None  # binary: prediction is true at or above it
    threshold_choice: str = ""  # how it was chosen, in words
    target: str
    target_unit: str | None = None
    quantile: float | None = None  # regression: the score is this quantile of the target, and not its mean
    calibration: Calibration | None = None  # of a classifier's probabilities; None where they are the model's own
    recalibrated: Recalibrated | None = None
    reliability: tuple[Reliability, ...] = ()  # of a classifier on the holdout, or on the answers that recalibrated it
    conformal: Conformal | None = None  # for intervals and sets; None where the model has none
    metric: str | None = None  # the one among `metrics` by which the gate decides
    metrics: dict[str, float]  # on the holdout, by name; of the judged model where this is its refit
    holdout_error: HoldoutError | None = None
    provenance: Provenance
    created_at: str
    tags: dict[str, str]
    inference_log: InferenceLogPolicy = InferenceLogPolicy()


class Golden(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Real rows with the answers the native model gave, replayed before a bundle takes traffic.

    Each row holds the request's inputs and the values its look-ups gave; `matrix` is what the model saw and `scores`
    what it answered.
    """

    inputs: tuple[dict[str, Any], ...]
    looked_up: tuple[dict[str, Any], ...]
    matrix: tuple[tuple[float | None, ...], ...]  # null stands for NaN
    scores: tuple[Any, ...]


class Target(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One version behind an endpoint."""

    version: int
    digest: str
    share: float = 1.0  # of the traffic; 0 with mode "shadow"
    mode: Literal["live", "shadow"] = "live"
    name: str | None = None  # what Databricks' clients call it; `<model>-<version>` when absent


class CanaryPolicy(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a release walks through shares of the traffic, and what sends it back: `promotion.canary` in defs.yaml."""

    steps: tuple[float, ...] = (5.0, 25.0, 100.0)  # percent of the traffic; the last is all of it
    minutes: float = 30.0  # that a step lasts at least
    min_requests: int = 200  # of each side, before a step is passed
    max_wait_hours: float = 24.0  # for these requests, after the step's minutes; then the walk is rolled back
    max_error_increase: float = 0.01  # share of requests that were not answered, above the champion's
    max_latency_ratio: float = 1.5  # median and 95th percentile, over the champion's
    max_flag_increase: float = 0.05  # share of requests with flagged inputs, above the champion's
    max_score_distance: float = 0.2  # largest distance between the distribution functions of the scores
    false_alarm: float = 0.01  # chance that a canary equal to the champion is rolled back in the whole walk


CanaryState = Literal["walking", "completed", "rolled back", "ended"]


class Canary(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A canary walk, as the endpoint document has it: all that is needed to go on with it, or to end it."""

    version: int  # the candidate
    digest: str
    step: int  # position in the policy's steps
    state: CanaryState
    policy: CanaryPolicy
    base: tuple[Target, ...]  # what served before, and serves again after a rollback
    base_key: str | None
    started_at: str
    started_by: str
    reason: str  # why the candidate is to serve

    @property
    def percent(self) -> float:
        """Share of the traffic that the step gives the candidate."""
        return self.policy.steps[self.step]

    @property
    def ended_by_this(self) -> str:
        """What the reason of a change says that ended the walk."""
        return f"this ends the canary of version {self.version} at {self.percent:g} %"

    def under_way(self, name: str) -> str:
        """Say that the walk of an endpoint stands in the way, and what to do."""
        return (
            f"{name}: a canary walk of version {self.version} is under way ({self.percent:g} %, by {self.started_by}); "
            f"wait until it has ended (ml-platform canary status {name}), or end it: ml-platform canary abort {name} "
            '--reason "…"'
        )


class Endpoint(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The endpoint document of a model: what serving watches. Replaced atomically, revision by revision."""

    model: str
    revision: int
    targets: tuple[Target, ...]  # none: out of service
    updated_at: str
    updated_by: str
    reason: str
    previous: tuple[Target, ...] = ()  # what the revision before served
    action: Action = "promotion"
    key: str | None = None  # input whose value decides which version answers; the model's id when absent
    own_name: str | None = None  # where the endpoint is not called as its model
    canary: Canary | None = None  # of the revisions of a walk, the one that ended it included

    @property
    def walk(self) -> Canary | None:
        """The canary walk that is under way; None without one."""
        return self.canary if self.canary is not None and self.canary.state == "walking" else None

    @property
    def champion(self) -> Target | None:
        """The champion: the live target with the largest share, the newest of equals; None when none is live.

        During a canary walk the candidate is none yet, whatever its share.
        """
        return champion_of_targets(self.walk.base if self.walk else self.targets)

    @property
    def champion_before(self) -> Target | None:
        """The champion of what this document took the place of."""
        return champion_of_targets(self.canary.base if self.canary else self.previous)

    @property
    def name(self) -> str:
        """What the endpoint is called in paths and files."""
        return self.own_name or self.model

    @property
    def is_retired(self) -> bool:
        """Whether its model was retired: it is out of service, and not meant to come back."""
        return self.action == "retirement"


def champion_target(endpoint: Endpoint) -> Target:
    """The champion of an endpoint that serves (raises LookupError when no version is live)."""
    champion = endpoint.champion
    if champion is None:
        raise LookupError(f"{endpoint.name}: no version is live (revision {endpoint.revision})")
    return champion


def champion_of_targets(targets: Sequence[Target]) -> Target | None:
    """The live target with the largest share, the newest of equals; None when none is live."""
    live = [target for target in targets if target.mode == "live"]
    return max(live, key=lambda target: (target.share, target.version), default=None)


def describe_targets(targets: Sequence[Target]) -> str:
    """Say in words which versions answer, with which shares.

    Examples
    --------
    >>> describe_targets([Target(version=3, digest="", share=0.9), Target(version=4, digest="", share=0.1)])
    'version 3 (live 90%), version 4 (live 10%)'
    """
    shares = [f" {100 * target.share:.4g}%" if target.mode == "live" else "" for target in targets]
    said = [f"version {target.version} ({target.mode}{share})" for target, share in zip(targets, shares, strict=True)]
    return ", ".join(said) or "nothing"
