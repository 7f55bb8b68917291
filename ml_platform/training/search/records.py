"""What is kept of a trial that has ended, and how it stands in the result of the search."""

from typing import Literal

from pydantic import Field

from ml_platform.spec.families import Parameter
from ml_platform.spec.types import Strict
from ml_platform.training.documents import StoppedTrial, Trial
from ml_platform.training.search.trial import TrialResult


class TrialRecord(Strict):
    """A trial that has ended, however it did."""

    number: int = Field(description="Position over all families, from 0.")
    family: str = Field(description="Its kind of estimator.")
    state: Literal["complete", "pruned", "failed"] = Field(description="How it ended.")
    suggested: dict[str, Parameter] = Field(description="Parameters as they were drawn.")
    params: dict[str, Parameter] = Field(description="Parameters as they were fitted, the number of rounds included.")
    metrics: dict[str, float] = Field(default_factory=dict, description="On the validation rows.")
    train_metrics: dict[str, float] = Field(default_factory=dict, description="On some of the training rows.")
    threshold: float | None = Field(None, description="Binary: as the spec has it chosen.")
    rungs: dict[int, float] = Field(default_factory=dict, description="Training rows → the search's metric.")
    curve: tuple[float, ...] = Field((), description="Loss on the validation rows after each round or epoch.")
    reason: str = Field("", description="Why it was pruned or failed.")
    seconds: float = Field(description="Time that it took.")

    def trial(self, metric: str) -> Trial:
        """The candidate that a complete trial is."""
        return Trial(
            number=self.number,
            family=self.family,
            params=self.params,
            score=self.metrics[metric],
            metrics=self.metrics,
            threshold=self.threshold,
            seconds=self.seconds,
        )

    def stopped(self) -> StoppedTrial:
        """A trial that gave no candidate, as the result names it."""
        return StoppedTrial(
            number=self.number,
            family=self.family,
            params=self.params,
            state="failed" if self.state == "failed" else "pruned",
            reason=self.reason,
            seconds=self.seconds,
        )


def complete_record(
    number: int,
    family: str,
    suggested: dict[str, Parameter],
    result: TrialResult,
    *,
    rungs: dict[int, float],
    seconds: float,
) -> TrialRecord:
    """Make the record of a trial that was fitted on all rows."""
    return TrialRecord(
        number=number,
        family=family,
        state="complete",
        suggested=suggested,
        params=result.params,
        metrics=result.metrics,
        train_metrics=result.train_metrics,
        threshold=result.threshold,
        rungs=rungs,
        curve=result.curve,
        seconds=seconds,
    )
