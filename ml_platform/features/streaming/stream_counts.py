"""What a feature stream did since it was opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import polars as pl

from ml_platform.features.stream_spec import TOO_LATE
from ml_platform.features.streaming.read_events import Refused

_REASONS = 100  # kept; messages may be wrong in endless ways


@dataclass
class StreamCounts:
    """Numbers of events, messages, rows and timelines."""

    events: int = 0
    late: int = 0  # arrived after others that are newer, and counted
    too_late: int = 0  # kept, but counted in no window
    refused: int = 0
    landed: int = 0  # rows of the raw table
    written: int = 0  # timelines
    refreshed: int = 0  # timelines written because time passed
    newest: int | None = None  # event time in microseconds
    reasons: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Self:
        """The counts as they are now."""
        return replace(self, reasons=dict(self.reasons))

    def add(self, rows: pl.DataFrame, time: str, refused: Sequence[Refused]) -> None:
        """Count the events of a batch, in the order in which they came, and what was refused."""
        self.events += rows.height
        self.refused += len(refused)
        for one in refused:
            if one.reason in self.reasons or len(self.reasons) < _REASONS:
                self.reasons[one.reason] = self.reasons.get(one.reason, 0) + 1
        if not rows.height:
            return
        us, too_late = rows.get_column(time).to_physical().to_numpy(), rows.get_column(TOO_LATE).to_numpy()
        newest = np.maximum.accumulate(us)
        before = np.concatenate([us[:1] if self.newest is None else [self.newest], newest[:-1]])
        if self.newest is not None:
            before = np.maximum(before, self.newest)
        self.too_late += int(too_late.sum())
        self.late += int(((us < before) & ~too_late).sum())
        self.newest = int(max(newest[-1], before[0]))
