"""How far a search has come, in numbers and in one line."""

from collections.abc import Callable
from dataclasses import dataclass

from ml_platform.training.search.records import TrialRecord


@dataclass(frozen=True)
class Progress:
    """A search after a trial.

    Attributes
    ----------
    record
        The trial that has just ended.
    ended, most_trials
        Trials that have ended, and trials that there will be unless time ends the search before.
    metric
        What is optimised.
    best
        The best trial so far; None before the first success.
    seconds
        Time since the search began, without that between an interruption and its resumption.
    """

    record: TrialRecord
    ended: int
    most_trials: int
    metric: str
    best: TrialRecord | None
    seconds: float

    @property
    def line(self) -> str:
        """What there is to say of the trial."""
        record, best = self.record, self.best
        state = "" if record.state == "complete" else f" {record.state}"
        outcome = record.reason if record.state == "failed" else f"{self.metric} {record.metrics[self.metric]:.4f}"
        line = f"trial {self.ended} of {self.most_trials}: {record.family}{state}, {outcome} in {record.seconds:.1f} s"
        return f"{line}; best {best.metrics[self.metric]:.4f}, {best.family}" if best else line


OnProgress = Callable[[Progress], None]
