"""What the steps of training hand to one another: small frozen documents that travel as JSON.

Rows stay in the lake, plots and parameters in MLflow, models in the release store; a document names them.
"""

from datetime import datetime
from typing import Literal

from pydantic import Field

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.spec.families import Parameter
from ml_platform.spec.guardrails import GuardrailName
from ml_platform.spec.types import Strict

UNCOMPUTED = "cannot be computed"  # in the reason of a guardrail without a number, after its name


class Window(Strict):
    """Rows of one part of the time-ordered split."""

    first: datetime = Field(description="Timestamp of the earliest row (UTC).")
    last: datetime = Field(description="Timestamp of the newest row (UTC).")
    rows: int = Field(description="Rows of the part.")


class SplitBounds(Strict):
    """The parts of a training set: every training label was known before the next part's first row."""

    train: Window = Field(description="Rows that are learned from.")
    validation: Window = Field(description="Rows on which candidates are compared.")
    holdout: Window = Field(description="Newest rows, on which the gate compares.")


class Trial(Strict):
    """One trial of the search: trained on the training part, measured on the validation part."""

    number: int = Field(description="Position over all families, from 0.")
    family: str = Field(description="Its kind of estimator.")
    params: dict[str, Parameter] = Field(description="As its family takes them, the number of trees included.")
    score: float = Field(description="The search's metric on the validation rows.")
    metrics: dict[str, float] = Field(description="All metrics on the validation rows.")
    threshold: float | None = Field(None, description="Binary: as `threshold` in defs.yaml, on validation rows.")
    seconds: float = Field(description="Time that the trial took.")


class StoppedTrial(Strict):
    """A trial of the search that gave no candidate."""

    number: int = Field(description="Position over all families, from 0.")
    family: str = Field(description="Its kind of estimator.")
    params: dict[str, Parameter] = Field(description="As its family takes them.")
    state: Literal["pruned", "failed"] = Field(description="Ended early as a poor one, or by an error.")
    reason: str = Field(description="Why it ended.")
    seconds: float = Field(description="Time that the trial took.")


class SearchResult(Strict):
    """Outcome of a search over families and parameters."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    metric: str = Field(description="Metric that the search optimises.")
    higher_is_better: bool = Field(description="Direction of the metric.")
    training_set: TrainingSetRef = Field(description="The rows that were searched on.")
    bounds: SplitBounds = Field(description="The parts of the rows.")
    candidates: tuple[Trial, ...] = Field(min_length=1, description="In the order of their trials.")
    stopped: tuple[StoppedTrial, ...] = Field((), description="Trials that were pruned or failed, in their order.")
    run_id: str = Field(description="MLflow run under which every trial is a child run.")
    run_url: str = Field(description="Address of the search's run in MLflow.")

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
    tolerance: float = Field(description="Largest difference of a score that is allowed.")


class PassedOver(Strict):
    """A candidate with a better score than the one that was taken, which could not be exported."""

    number: int = Field(description="Its number among the candidates.")
    family: str = Field(description="Its kind of estimator.")
    reason: str = Field(description="Why it could not be exported.")

    @property
    def told(self) -> str:
        """Which one could not be exported, and why."""
        return f"candidate {self.number} ({self.family}) could not be exported: {self.reason}"


class Refit(Strict):
    """How the model to be registered relates to the one that the gate judged."""

    judged_digest: str = Field(description="Bundle of the judged model.")
    judged_model_digest: str = Field(description="Digest of what decides the judged model's scores.")
    judged: Window = Field(description="Rows that the judged model learned from.")
    refitted: bool = Field(description="False: the judged model is registered itself.")
    agreement: float | None = Field(
        None, description="Concordance (Lin) of both models' scores on the holdout rows, 1 for the same scores."
    )
    reasons: tuple[str, ...] = Field(description="What was checked, and what was found.")


class ImportLineage(Strict):
    """Where a model comes from that was not trained here."""

    by: str = Field(description="User who imported it.")
    source: str = Field(description="File or MLflow URI.")
    flavor: str = Field(description="Library that made it.")
    digest: str = Field(description="SHA-256 of the file.")
    library: str = Field(description="Library that read it, with its version.")
    summary: str = Field(description="What the file holds, in a few words.")
    origin: str = Field("", description="What MLflow says of its training.")
    trained_until_stated: bool = Field(
        False, description="Whether who imported it said until when its training rows reach."
    )
    trusted: bool = Field(False, description="Whether the file could run code, and was allowed to.")


class DistributedFit(Strict):
    """How several workers trained a model together."""

    workers: int = Field(description="Processes that trained.")
    cpus_per_worker: int = Field(description="Cores that each had.")
    executor: Literal["cluster", "local"] = Field(description="Where they ran: on a cluster, or on this machine.")
    rows: tuple[int, ...] = Field(description="Rows that each of them held.")
    rounds: int = Field(description="Rounds that were fitted.")
    sought_rounds: int = Field(0, description="Rounds fitted to find their number on the validation rows.")

    @property
    def told(self) -> str:
        """In a few words."""
        where = "on a cluster" if self.executor == "cluster" else "on one machine"
        return f"{self.workers} workers of Ray {where}, {min(self.rows):,} to {max(self.rows):,} rows each"


class TrainedModel(Strict):
    """A model trained in full, exported, and stored as a bundle."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    digest: str = Field(description="Digest of the bundle in the release store.")
    model_digest: str = Field(description="Digest of graph and signature: equal for equal training.")
    family: str = Field(description="Its kind of estimator.")
    params: dict[str, Parameter] = Field(description="Its parameters.")
    threshold: float | None = Field(
        None, description="Probability from which a binary model says true; null for other tasks."
    )
    run_id: str = Field(description="MLflow run of the training.")
    run_url: str = Field(description="Address of that run.")
    model_uri: str = Field(description="MLflow URI of the logged ONNX model.")
    training_set: TrainingSetRef = Field(description="The rows that it was made from.")
    bounds: SplitBounds = Field(description="The parts of the rows.")
    trained: Window = Field(description="Rows that the model learned from: training and validation parts.")
    metrics: dict[str, float] = Field(description="On the holdout rows; a refit has those of the judged model.")
    validation_metrics: dict[str, float] = Field(
        description="On the validation rows, of the candidate trained without them."
    )
    importance: dict[str, float] = Field(description="Feature → share of the total importance, largest first.")
    parity: ParityReport = Field(description="How the export compares with it.")
    calibration: str = Field("", description="How its probabilities were calibrated, or why not; empty for neither.")
    passed_over: tuple[PassedOver, ...] = Field((), description="Better candidates that could not be exported.")
    code_version: str = Field(description="Commit of the code; `-dirty` where something was not committed.")
    dagster_run_id: str | None = Field(None, description="Run of Dagster; null outside of one.")
    seconds: float = Field(description="How long the training took.")
    distributed: DistributedFit | None = Field(None, description="None where one process trained it.")
    refit: Refit | None = Field(None, description="None before the gate has judged.")
    imported: ImportLineage | None = Field(None, description="None where it was trained here.")

    @property
    def judged_digest(self) -> str:
        """Bundle that the gate judges: its own, or the one that this is the refit of."""
        return self.refit.judged_digest if self.refit else self.digest


class SliceResult(Strict):
    """The gate's metric on one group of holdout rows."""

    column: str = Field(description="Column by which rows are grouped.")
    value: str = Field(description="The group's value.")
    rows: int = Field(description="Its rows in the holdout.")
    challenger: float = Field(description="The challenger's metric on them.")
    reference: float = Field(description="The champion's, or the naive answer's.")
    loss: float = Field(description="How much worse the challenger is; negative when better.")
    lower: float | None = Field(
        None, description="Lower bound of the loss, sure for all groups together; null where the group has no interval."
    )
    passed: bool = Field(description="Whether it loses no more than allowed, or no more than chance makes.")


class Interval(Strict):
    """Cluster t interval of the challenger's gain over another answer to the same rows (positive is better)."""

    gain: float = Field(description="How much better the challenger is, in units of the metric; negative when worse.")
    lower: float = Field(description="Lower bound of the gain.")
    upper: float = Field(description="Upper bound of the gain.")
    confidence: float = Field(description="Of the two-sided interval, 0 to 1.")
    standard_error: float = Field(description="Of the gain, over blocks.")
    blocks: int = Field(description="Blocks of rows, independent of one another, that it rests on.")
    block: str = Field(description="What they are: `promotion.block`.")


class GuardrailResult(Strict):
    """What one guardrail found: a number, its bound, and whether it holds."""

    name: GuardrailName = Field(description="Which guardrail.")
    of: str = Field("", description="Columns whose groups are judged; empty for the whole model.")
    value: float | None = Field(None, description="What was measured; null where it could not be.")
    lower: float | None = Field(None, description="Lower bound of a number that chance moves; null of an exact one.")
    upper: float | None = Field(None, description="Upper bound of it.")
    bound: float | None = Field(None, description="What it is held to; null where it is only shown.")
    at_least: bool = Field(
        False, description="Whether the bound is the smallest value that is allowed, not the largest."
    )
    passed: bool = Field(description="Whether the version may be released as far as this goes.")
    optional: bool = Field(False, description="Whether it refuses nothing where it cannot be computed.")
    reason: str = Field(description="What was found and wanted, or why it could not be computed, in words.")

    @property
    def title(self) -> str:
        """Its name, with the columns whose groups are judged."""
        return f"{self.name} of {self.of}" if self.of else self.name

    @property
    def verdict(self) -> Literal["held", "broken", "not computed", "not applicable", "shown"]:
        """What became of it, in a word or two."""
        if self.value is None and not self.reason.startswith(f"{self.name} {UNCOMPUTED}"):
            return "not applicable"
        if self.value is None and self.bound is not None:
            return "not computed"
        if not self.passed:
            return "broken"
        return "shown" if self.bound is None else "held"


class Power(Strict):
    """What so many blocks of rows can show, from how much this gain varies between blocks."""

    share: float = Field(0.8, description="Wanted probability that a true gain passes the gate.")
    blocks: int = Field(description="Blocks of the holdout.")
    block: str = Field(description="What they are: `promotion.block`.")
    standard_error: float = Field(description="Of the gain, over so many blocks.")
    confidence: float = Field(description="Of the interval, at a first try.")
    min_gain: float = Field(description="Smallest gain that the rule lets pass, however sure.")
    bound: float = Field(description="What the lower bound of the gain has to be above.")
    min_blocks: int = Field(2, description="With fewer blocks there is no verdict.")
    detectable: float = Field(description="Smallest true gain that passes with the wanted probability.")
    observed: float = Field(description="Gain that was measured.")
    blocks_needed: int | None = Field(
        description="Blocks with which a true gain as large as the observed one would pass with that probability; null "
        "where no number of them suffices."
    )


class Support(Strict):
    """How much the compared rows can tell."""

    rows: int = Field(description="Holdout rows.")
    class_rows: int | None = Field(None, description="Rows of other classes than the most frequent; None: regression.")
    blocks: int = Field(description="Blocks of `promotion.block` that hold rows.")
    effective_blocks: float = Field(description="Equally large blocks that would tell as much (Kish).")
    constant: bool = Field(description="Whether the challenger answers the same for every row.")


class Evaluation(Strict):
    """Challenger against champion (or naive baseline) on the same rows, and what the gate concludes."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    metric: str = Field(description="Metric of the gate.")
    higher_is_better: bool = Field(description="Direction of the metric.")
    challenger_digest: str = Field(description="Digest of the challenger's bundle.")
    challenger_model_digest: str = Field(description="Digest of what decides its scores.")
    champion_version: int | None = Field(None, description="None before the first release.")
    champion_digest: str | None = Field(None, description="Of the bundle that serves.")
    judged_digest: str | None = Field(None, description="Of the champion as it was judged: what was compared.")
    champion_model_digest: str | None = Field(None, description="Of the champion as it was judged.")
    revision: int = Field(description="Revision of the endpoint document that the comparison is based on; 0 for none.")
    holdout: Window | None = Field(None, description="Rows compared; None when no row is new to both.")
    challenger: dict[str, float] = Field(default_factory=dict, description="The challenger's metrics on these rows.")
    champion: dict[str, float] | None = Field(
        None, description="Metric → value of the champion on the holdout; null where there is none."
    )
    naive: dict[str, float] = Field(default_factory=dict, description="Metrics of the naive baseline on these rows.")
    naive_description: str = Field("", description="What the naive answer is.")
    reference: str = Field(description="What the challenger had to beat: 'champion (version 3)' or 'naive baseline'.")
    interval: Interval | None = Field(None, description="Of the gain over the reference.")
    further_gains: dict[str, Interval] = Field(
        default_factory=dict,
        description="Gains in the other metrics over the reference, which decide nothing; none of very many rows.",
    )
    within_blocks: Interval | None = Field(
        None,
        description="Of the same gain, if the same blocks came again with other rows: it does not see how blocks "
        "differ, and decides nothing. Null where blocks have few rows.",
    )
    over_naive: Interval | None = Field(None, description="Of the gain over the naive baseline.")
    over_chance: Interval | None = Field(None, description="Of the gain over the best answer that is always the same.")
    support: Support | None = Field(None, description="How much the holdout can tell; null where it was not asked.")
    tries: float = Field(1.0, description="How often these rows served to choose, this time included.")
    power: Power | None = Field(None, description="What gain so many blocks can show; null without an interval.")
    slices: tuple[SliceResult, ...] = Field((), description="Results on the groups of the guarded columns.")
    guardrails: tuple[GuardrailResult, ...] = Field(
        (), description="Everything beside the gain that was held to a bound; empty in evaluations of earlier engines."
    )
    latency_ms: float = Field(description="Median time of a one-row prediction.")
    parity: ParityReport = Field(description="How the export compares with the trained model.")
    promote: bool = Field(description="Whether the gate lets it pass.")
    reasons: tuple[str, ...] = Field(description="Why, in words and numbers, passed and failed conditions alike.")


class RegisteredVersion(Strict):
    """A version in the model registry."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    version: int = Field(description="Number in the registry.")
    digest: str = Field(description="Digest of the release bundle.")
    judged_digest: str | None = Field(None, description="Bundle that the gate judged, where this is its refit.")
    model_digest: str = Field(description="Digest of what decides its scores.")
    run_id: str = Field(description="MLflow run that it came from.")
    model_uri: str = Field(description="Address of the logged model in MLflow.")
    url: str = Field(description="Page of the version in the MLflow UI.")


class ReleaseDecision(Strict):
    """What the promotion did."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    promoted: bool = Field(description="Whether the version serves now.")
    version: int = Field(description="The version that was decided on.")
    previous_version: int | None = Field(None, description="The version that served before; null for none.")
    revision: int = Field(description="Revision of the endpoint document afterwards; 0 when nothing serves yet.")
    reasons: tuple[str, ...] = Field(description="Why, one sentence each.")
