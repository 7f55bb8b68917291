"""What the steps of training hand to one another: small frozen documents that travel as JSON.

Rows stay in the lake, plots and parameters in MLflow, models in the release store; a document names them.
"""

from datetime import datetime

from pydantic import Field

from ml_platform.features.training_sets.build import TrainingSetRef
from ml_platform.spec.model import Family
from ml_platform.spec.types import Strict

Parameter = bool | int | float | str


class Window(Strict):
    """Rows of one part of the time-ordered split."""

    first: datetime = Field(description="Timestamp of the earliest row (UTC).")
    last: datetime = Field(description="Timestamp of the newest row (UTC).")
    rows: int


class SplitBounds(Strict):
    """The parts of a training set: every training label was known before the next part's first row."""

    train: Window
    validation: Window
    holdout: Window


class Trial(Strict):
    """One trial of the search: trained on the training part, measured on the validation part."""

    number: int = Field(description="Position over all families, from 0.")
    family: Family
    params: dict[str, Parameter] = Field(description="As `build_estimator` takes them, the number of trees included.")
    score: float = Field(description="The search's metric on the validation rows.")
    metrics: dict[str, float] = Field(description="All metrics on the validation rows.")
    threshold: float | None = Field(None, description="Binary: as `threshold` in defs.yaml, on validation rows.")
    seconds: float = Field(description="Time that the trial took.")


class SearchResult(Strict):
    """Outcome of a search over families and parameters."""

    model: str
    metric: str
    higher_is_better: bool
    training_set: TrainingSetRef
    bounds: SplitBounds
    candidates: tuple[Trial, ...] = Field(min_length=1, description="In the order of their trials.")
    run_id: str = Field(description="MLflow run under which every trial is a child run.")
    run_url: str

    @property
    def ranked(self) -> tuple[Trial, ...]:
        """Candidates, best first; the earlier trial wins a tie."""
        sign = -1.0 if self.higher_is_better else 1.0
        return tuple(sorted(self.candidates, key=lambda candidate: (sign * candidate.score, candidate.number)))

    @property
    def best(self) -> Trial:
        """The candidate to train in full."""
        return self.ranked[0]

    @property
    def best_by_family(self) -> dict[str, Trial]:
        """Best candidate of each family, best family first."""
        best: dict[str, Trial] = {}
        for candidate in self.ranked:
            best.setdefault(candidate.family, candidate)
        return best


class ParityReport(Strict):
    """How the exported graph compares with the model that was trained."""

    rows: int = Field(description="Rows compared: real rows and rows made to break a careless export.")
    max_difference: float = Field(description="Largest absolute difference of a score.")
    tolerance: float


class PassedOver(Strict):
    """A candidate with a better score than the one that was taken, which could not be exported."""

    number: int = Field(description="Its number among the candidates.")
    family: Family
    reason: str

    @property
    def told(self) -> str:
        """Which one could not be exported, and why."""
        return f"candidate {self.number} ({self.family}) could not be exported: {self.reason}"


class Refit(Strict):
    """How the model to be registered relates to the one that the gate judged."""

    judged_digest: str = Field(description="Bundle of the judged model.")
    judged_model_digest: str
    judged: Window = Field(description="Rows that the judged model learned from.")
    refitted: bool = Field(description="False: the judged model is registered itself.")
    agreement: float | None = Field(
        None, description="Concordance (Lin) of both models' scores on the holdout rows, 1 for the same scores."
    )
    reasons: tuple[str, ...]


class TrainedModel(Strict):
    """A model trained in full, exported, and stored as a bundle."""

    model: str
    digest: str = Field(description="Digest of the bundle in the release store.")
    model_digest: str = Field(description="Digest of graph and signature: equal for equal training.")
    family: Family
    params: dict[str, Parameter]
    threshold: float | None = None
    run_id: str
    run_url: str
    model_uri: str = Field(description="MLflow URI of the logged ONNX model.")
    training_set: TrainingSetRef
    bounds: SplitBounds
    trained: Window = Field(description="Rows that the model learned from: training and validation parts.")
    metrics: dict[str, float] = Field(description="On the holdout rows; a refit has those of the judged model.")
    validation_metrics: dict[str, float] = Field(
        description="On the validation rows, of the candidate trained without them."
    )
    importance: dict[str, float] = Field(description="Feature → share of the total importance, largest first.")
    parity: ParityReport
    passed_over: tuple[PassedOver, ...] = Field((), description="Better candidates that could not be exported.")
    code_version: str
    dagster_run_id: str | None = None
    seconds: float
    refit: Refit | None = Field(None, description="None before the gate has judged.")

    @property
    def judged_digest(self) -> str:
        """Bundle that the gate judges: its own, or the one that this is the refit of."""
        return self.refit.judged_digest if self.refit else self.digest


class SliceResult(Strict):
    """The gate's metric on one group of holdout rows."""

    column: str
    value: str
    rows: int
    challenger: float
    reference: float
    loss: float = Field(description="How much worse the challenger is; negative when better.")
    passed: bool


class Interval(Strict):
    """Cluster t interval of the challenger's gain over another answer to the same rows (positive is better)."""

    gain: float
    lower: float
    upper: float
    confidence: float
    standard_error: float
    blocks: int = Field(description="Blocks of rows, independent of one another, that it rests on.")
    block: str = Field(description="What they are: `promotion.block`.")


class Support(Strict):
    """How much the compared rows can tell."""

    rows: int
    class_rows: int | None = Field(None, description="Rows of other classes than the most frequent; None: regression.")
    blocks: int = Field(description="Blocks of `promotion.block` that hold rows.")
    effective_blocks: float = Field(description="Equally large blocks that would tell as much (Kish).")
    constant: bool = Field(description="Whether the challenger answers the same for every row.")


class Evaluation(Strict):
    """Challenger against champion (or naive baseline) on the same rows, and what the gate concludes."""

    model: str
    metric: str
    higher_is_better: bool
    challenger_digest: str
    challenger_model_digest: str
    champion_version: int | None = Field(None, description="None before the first release.")
    champion_digest: str | None = Field(None, description="Of the bundle that serves.")
    judged_digest: str | None = Field(None, description="Of the champion as it was judged: what was compared.")
    champion_model_digest: str | None = Field(None, description="Of the champion as it was judged.")
    revision: int = Field(description="Revision of the endpoint document that the comparison is based on; 0 for none.")
    holdout: Window | None = Field(None, description="Rows compared; None when no row is new to both.")
    challenger: dict[str, float] = Field(default_factory=dict, description="The challenger's metrics on these rows.")
    champion: dict[str, float] | None = None
    naive: dict[str, float] = Field(default_factory=dict, description="Metrics of the naive baseline on these rows.")
    naive_description: str = ""
    reference: str = Field(description="What the challenger had to beat: 'champion (version 3)' or 'naive baseline'.")
    interval: Interval | None = Field(None, description="Of the gain over the reference.")
    over_naive: Interval | None = Field(None, description="Of the gain over the naive baseline.")
    over_chance: Interval | None = Field(None, description="Of the gain over the best answer that is always the same.")
    support: Support | None = None
    tries: float = Field(1.0, description="How often these rows served to choose, this time included.")
    slices: tuple[SliceResult, ...] = ()
    latency_ms: float = Field(description="Median time of a one-row prediction.")
    parity: ParityReport
    promote: bool
    reasons: tuple[str, ...] = Field(description="Why, in words and numbers, passed and failed conditions alike.")


class RegisteredVersion(Strict):
    """A version in the model registry."""

    model: str
    version: int
    digest: str
    judged_digest: str | None = Field(None, description="Bundle that the gate judged, where this is its refit.")
    model_digest: str
    run_id: str
    model_uri: str
    url: str = Field(description="Page of the version in the MLflow UI.")


class ReleaseDecision(Strict):
    """What the promotion did."""

    model: str
    promoted: bool
    version: int
    previous_version: int | None = None
    revision: int = Field(description="Revision of the endpoint document afterwards; 0 when nothing serves yet.")
    reasons: tuple[str, ...]
