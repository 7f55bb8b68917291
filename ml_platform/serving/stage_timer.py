"""Where a request's time goes: receive, translate, wait, decode, look-up, score, log, explain, encode."""

from collections.abc import Iterator
from itertools import pairwise
from time import perf_counter

SAMPLED = 32  # one request in this many is timed: timing each would cost it some ten microseconds


class StageTimer:
    """Instants of one request, each at the end of a stage.

    Examples
    --------
    >>> stages = StageTimer(perf_counter())
    >>> stages.mark("decode")
    >>> [(stage, seconds >= 0) for stage, _, seconds in stages.spans()]
    [('decode', True)]
    """

    __slots__ = ("_marks", "sampled", "started")

    def __init__(self, started: float) -> None:
        self.started = started  # `perf_counter`
        self.sampled = False  # whether they go into the metrics
        self._marks = [("", started)]

    def mark(self, stage: str) -> None:
        """End a stage here."""
        self._marks.append((stage, perf_counter()))

    def spans(self) -> Iterator[tuple[str, float, float]]:
        """Each stage with its start (`perf_counter`) and its length in seconds."""
        for (_, before), (stage, after) in pairwise(self._marks):
            yield stage, before, after - before
