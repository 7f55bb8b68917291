"""How long a search goes on: trials and time, in total and of each family, and families that only fail."""

from collections import Counter
from collections.abc import Sequence

from ml_platform.spec.model import Tuning
from ml_platform.training.search.records import TrialRecord

GIVE_UP_AFTER = 3  # failures of a family without any success


class Budget:
    """Which families may have a further trial, by the trials that there are."""

    def __init__(self, families: Sequence[str], tuning: Tuning) -> None:
        self.families = tuple(families)
        self._tuning = tuning
        self.most_trials = tuning.most_trials(len(self.families))

    def open_families(self, records: Sequence[TrialRecord], running: Sequence[str], seconds: float) -> tuple[str, ...]:
        """Families that may have a further trial; none where the search is over.

        Parameters
        ----------
        records
            Trials that have ended.
        running
            Family of each trial under way.
        seconds
            Time that the search has taken so far. However short the budget is, one trial has to succeed before it
            ends the search.
        """
        if len(records) + len(running) >= self.most_trials:
            return ()
        complete = any(record.state == "complete" for record in records)
        total = self._tuning.total_timeout_minutes
        if total is not None and complete and seconds > 60 * total:
            return ()
        return tuple(family for family in self.families if self._is_open(family, records, Counter(running)[family]))

    def _is_open(self, family: str, records: Sequence[TrialRecord], running: int) -> bool:
        own = [record for record in records if record.family == family]
        each, minutes = self._tuning.trials_per_family, self._tuning.timeout_minutes
        if each is not None and len(own) + running >= each:
            return False
        if minutes is not None and own and sum(record.seconds for record in own) > 60 * minutes:
            return False
        return len(own) < GIVE_UP_AFTER or any(record.state != "failed" for record in own)
