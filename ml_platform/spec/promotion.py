"""When a new version may take the champion's place: the keys under `promotion` in `defs.yaml`."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ml_platform.spec.guardrails import Columns, Guardrails, column_sets
from ml_platform.spec.types import Declared

BLOCK_UNITS = ("day", "week", "rows")


class Approval(Declared):
    """The person who lets a version through before it serves for the first time."""

    four_eyes: bool = Field(True, description="Who asked for the release may not approve it.")
    expires_days: float = Field(
        14.0,
        gt=0,
        le=3650,
        description="Days after which a request, or an approval that nobody has used, no longer counts.",
    )
    approvers: tuple[str, ...] = Field(
        (),
        description="Who may approve: names of API keys or tokens, and of users at a terminal. Anybody who may promote "
        "when empty.",
    )


class Canary(Declared):
    """How a release walks through shares of the traffic, each step guarded by the champion's share of the same time."""

    steps: tuple[float, ...] = Field(
        (5, 25, 100), min_length=2, description="Rising percents of the traffic; the last is 100, the whole of it."
    )
    minutes: float = Field(30.0, ge=0, description="That a step lasts at least.")
    min_requests: int = Field(200, ge=1, description="Requests of each side before a step is passed.")
    max_wait_hours: float = Field(
        24.0, gt=0, description="For these requests, after the step's minutes; then the walk is rolled back."
    )
    max_error_increase: float = Field(
        0.01, ge=0, lt=1, description="Share of requests that it refused or failed, above the champion's."
    )
    max_latency_ratio: float = Field(
        1.5, ge=1, description="Median and 95th percentile of the time of an answer, over the champion's."
    )
    max_flag_increase: float = Field(
        0.05, ge=0, lt=1, description="Share of requests answered with flagged inputs, above the champion's."
    )
    max_score_distance: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Largest distance of the distribution functions of both scores, apart from a shift by a tenth of "
        "their spread.",
    )
    false_alarm: float = Field(
        0.01, gt=0, lt=0.5, description="Chance that a version equal to the champion is rolled back in the whole walk."
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(before >= after for before, after in zip((0, *self.steps), self.steps, strict=False)):
            raise ValueError("steps: wants rising percents above 0, such as [5, 25, 100]")
        if self.steps[-1] != 100:
            raise ValueError(f"steps: wants 100 as the last, the whole traffic, found {self.steps[-1]:g}")
        return self


class Promotion(Declared):
    """The gate's rule, what it guards, and what happens once it passes."""

    metric: str = Field(
        "", description="Metric of the gate; roc_auc, log_loss or rmse by task when empty, pinball of a quantile."
    )
    mode: Literal["non_inferior", "superior"] = Field(
        "non_inferior",
        description="non_inferior: the gain is at least `min_gain`, and its lower bound above -`tolerance`. superior: "
        "the lower bound is above `min_gain`.",
    )
    min_gain: float | None = Field(
        None,
        ge=0,
        description="In units of the metric. When absent, superior: 0; non_inferior, more than another seed alone "
        "gives: roc_auc and accuracy 0.005, average_precision, f1 and r2 0.01, others 1 % of the champion's value.",
    )
    tolerance: float | None = Field(
        None, ge=0, description="How far below 0 the lower bound of the gain may be; a tenth of min_gain when absent."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the two-sided interval of the gain.")
    block: str = Field(
        "day",
        min_length=1,
        description="Rows that are not independent: of one `day` or `week` (UTC) of the timestamp, of one value of a "
        "column of the training set, or `rows` where each stands for itself.",
    )
    min_blocks: int = Field(7, ge=2, description="With fewer blocks in the holdout there is no verdict.")
    min_rows: int = Field(200, ge=2, description="With fewer holdout rows there is no verdict.")
    min_class_rows: int = Field(
        30, ge=1, description="Classification: as many holdout rows must be of other classes than the most frequent."
    )
    slices: Columns = Field(
        (),
        description="Columns whose every group is guarded; a list in the list guards the groups of its columns "
        "together, e.g. `[origin, [carrier, origin]]`.",
    )
    max_slice_loss: float = Field(
        0.05, ge=0, description="How much worse any large enough group may get, by more than chance."
    )
    min_slice_rows: int = Field(500, ge=1, description="Groups with fewer holdout rows are shown, not guarded.")
    baseline: tuple[str, ...] = Field(
        (),
        description="Regression: numeric features that are the naive answer, such as the value a week ago; the first "
        "that a row has counts, then the median of the training rows. That median alone when empty.",
    )
    max_latency_ms: float = Field(5.0, gt=0, description="Bound on the median time of a one-row prediction.")
    guardrails: Guardrails = Field(Guardrails(), description="What a new version must not break, whatever it gains.")
    refit: bool = Field(
        True, description="A version that passed is fitted again, with the same parameters, on all labelled rows."
    )
    min_agreement: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Smallest concordance (Lin) of the refitted model's scores with the judged one's on the holdout; "
        "below, the judged model serves.",
    )
    automatic: bool = Field(True, description="False: a passing version waits as challenger for a person.")

    approval: Approval | None = Field(
        None,
        description="With `automatic: false`: a version waits until a person has approved it, by whatever way it is to "
        "be released. Without, whoever may promote releases it.",
    )
    canary: Canary | None = Field(
        None,
        description="A release that takes a champion's place walks through these steps, after an approval where one is "
        "wanted, and goes back by itself where a guard is breached. Without, it takes all traffic at once.",
    )

    @field_validator("slices", mode="before")
    @classmethod
    def _are_columns(cls, value: object) -> object:
        return column_sets(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.approval is not None and self.automatic:
            raise ValueError("approval: wants automatic: false; a version that passes would be released by itself")
        if self.mode == "superior" and self.tolerance is not None:
            raise ValueError("tolerance: belongs to mode non_inferior; with superior the lower bound must be above 0")
        return self
