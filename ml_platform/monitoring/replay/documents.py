"""What came of running a challenger over logged requests."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from ml_platform.spec.types import Strict

ReplayVerdict = Literal["better", "worse", "no difference shown", "insufficient data"]


class Difference(Strict):
    """How far the challenger's answers are from the champion's, over rows that both answered."""

    rows: int = Field(description="Rows that both answered with a finite score.")
    weight: float = Field(description="Answered rows that these stand for, where only a share is logged.")
    mean: float = Field(description="Mean of challenger − champion; for multiclass, of half the summed distances.")
    mean_absolute: float = Field(description="Mean distance.")
    largest: float = Field(description="Largest distance.")
    quantiles: dict[str, float] = Field(description="Quantiles of the difference, of a sample of the rows.")
    correlation: float | None = Field(None, description="Of both scores; null for multiclass, and for a constant one.")
    changed: float | None = Field(None, description="Share of decisions that change; null for regression.")
    to_true: float | None = Field(None, description="Binary: share that turns true.")
    to_false: float | None = Field(None, description="Binary: share that turns false.")


class LabelledComparison(Strict):
    """Both on the same labelled rows that neither has learned from."""

    rows: int = Field(description="Labelled rows, one per id: as it was asked last.")
    days: int = Field(description="UTC days that they are of: the blocks of the interval.")
    metric: str = Field(description="Metric of the gate.")
    challenger: float = Field(description="Its value for the challenger.")
    champion: float = Field(description="Its value for the champion.")
    gain: float = Field(description="How much better the challenger is; negative when worse.")
    lower: float = Field(description="Lower bound of the gain, rows of one day being alike.")
    upper: float = Field(description="Upper bound.")
    confidence: float = Field(description="Of the two-sided interval.")
    sampled: bool = Field(False, description="Whether the rows were too many, and a sample of them was scored.")


class ReplayReport(Strict):
    """A challenger beside the champion, on requests that were really sent."""

    model: str = Field(description="Name of the model.")
    champion_version: int = Field(description="Version that answers.")
    champion_digest: str = Field(description="Its bundle.")
    challenger: str = Field(description="`version 4`, or the run whose candidate it is.")
    challenger_version: int | None = Field(None, description="Number of the version; null for a run's candidate.")
    challenger_digest: str = Field(description="Its bundle.")
    source: Literal["replay", "shadow"] = Field(description="Answered now, or as a shadow when the requests came.")
    at: datetime = Field(description="When this was made (UTC).")
    since: datetime | None = Field(None, description="Requests answered after this instant (UTC).")
    until: datetime | None = Field(None, description="Newest answered request (UTC).")
    logged: int = Field(0, description="Logged rows of these days.")
    weight: float = Field(0.0, description="Answered rows that they stand for.")
    answered: int = Field(0, description="Rows that the challenger answers.")
    refused: int = Field(0, description="Rows that it would refuse by its own contract.")
    refusals: dict[str, int] = Field(default_factory=dict, description="Values that it would refuse: `field: kind`.")
    flagged: dict[str, int] = Field(default_factory=dict, description="Values that it would flag: `field: kind`.")
    unscored: int = Field(0, description="Rows with a score of one of both that is not finite.")
    incomparable: dict[str, int] = Field(default_factory=dict, description="Rows left out: reason → number.")
    difference: Difference | None = Field(None, description="Null where no row was answered by both.")
    labelled: int = Field(0, description="Rows whose label is known.")
    comparison: LabelledComparison | None = Field(None, description="Null without enough labels.")
    latency_ms: float | None = Field(None, description="Median time of one row, the challenger.")
    champion_latency_ms: float | None = Field(None, description="Median time of one row, the champion.")
    seconds: float = Field(0.0, description="How long this took.")
    verdict: ReplayVerdict = Field(description="By the labelled rows.")
    reasons: tuple[str, ...] = Field(description="Why, one sentence each.")
    missing: tuple[str, ...] = Field((), description="What a verdict lacks, one sentence each.")
    notes: tuple[str, ...] = Field((), description="What a reader must know of the rows.")
