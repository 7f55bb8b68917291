"""The last minutes of the server's own metrics, kept in memory: what the charts draw and the tables count."""

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import Metric

from ml_platform.serving.telemetry.metrics import NAMESPACE, Metrics

SAMPLE_SECONDS = 5.0
KEPT_SECONDS = 600.0

_REQUESTS = f"{NAMESPACE}_requests_total"
_BUCKETS = f"{NAMESPACE}_request_seconds_bucket"
_PREDICTIONS = f"{NAMESPACE}_predictions_total"
_SHADOWED = f"{NAMESPACE}_shadow_predictions_total"
_NOT_FOUND = f"{NAMESPACE}_features_not_found_total"
_REJECTED_EARLY = f"{NAMESPACE}_rejected_early_total"
_VIOLATIONS = f"{NAMESPACE}_contract_violations_total"
_KEPT_SERIES = frozenset({_REQUESTS, _BUCKETS, _PREDICTIONS, _SHADOWED, _NOT_FOUND, _REJECTED_EARLY, _VIOLATIONS})

Series = tuple[str, ...]  # name, then the labels' values in the order of their names


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters at one instant."""

    at: float  # seconds since 1970
    counts: Mapping[Series, float]


@dataclass(frozen=True, slots=True)
class TrafficInterval:
    """What happened between two samples, or over all of them."""

    since: float
    until: float
    counts: Mapping[Series, float]

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.until - self.since

    def statuses(self, model: str) -> dict[str, float]:
        """Requests by status of their answer."""
        return {key[2]: count for key, count in self.counts.items() if key[:2] == (_REQUESTS, model)}

    def rejected_early(self) -> dict[str, float]:
        """Requests of all models that were refused before they reached a route, by status."""
        return {key[1]: count for key, count in self.counts.items() if key[0] == _REJECTED_EARLY}

    def violations(self, model: str) -> dict[tuple[str, str], float]:
        """Values that break the contract of the model's inputs, by input and kind."""
        counted = ((key, count) for key, count in self.counts.items() if key[0] == _VIOLATIONS and key[3] == model)
        return {(field, kind): count for (_, field, kind, _), count in counted}

    def rows(self, model: str, version: int) -> float:
        """Rows answered by a version, or scored by it as a shadow."""
        wanted = ((_PREDICTIONS, model, str(version)), (_SHADOWED, model, str(version)))
        return sum(self.counts.get(series, 0.0) for series in wanted)

    def not_found(self, model: str, view: str) -> float:
        """Rows without a value in a view."""
        return self.counts.get((_NOT_FOUND, model, view), 0.0)

    def latency(self, share: float, model: str, version: int | None = None) -> float | None:
        """Seconds within which a share of the requests was answered; None without requests."""
        buckets: dict[float, float] = {}
        for key, count in self.counts.items():
            if key[0] == _BUCKETS and key[2] == model and version in (None, int(key[3])):
                bound = float(key[1])
                buckets[bound] = buckets.get(bound, 0.0) + count
        return quantile(share, sorted(buckets.items()))


class History:
    """Samples of `KEPT_SECONDS`, one each `SAMPLE_SECONDS`. One per worker; each counts for all workers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._samples: deque[Sample] = deque(maxlen=int(KEPT_SECONDS / SAMPLE_SECONDS) + 1)

    def sample(self) -> None:
        """Read the counters."""
        self._samples.append(Sample(time.time(), _counts(self._metrics.collect())))

    def intervals(self) -> list[TrafficInterval]:
        """What happened, sample by sample, oldest first."""
        return [_between(before, after) for before, after in pairwise(tuple(self._samples))]

    def total(self) -> TrafficInterval:
        """What happened since the first sample that is kept."""
        samples = tuple(self._samples)
        if not samples:
            return TrafficInterval(0.0, 0.0, {})
        return _between(samples[0], samples[-1])

    def since_start(self) -> TrafficInterval:
        """What happened since the server started, as of the last sample."""
        samples = tuple(self._samples)
        return TrafficInterval(0.0, samples[-1].at, samples[-1].counts) if samples else TrafficInterval(0.0, 0.0, {})


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Quantile of a histogram with cumulative counts by upper bound, as Prometheus' `histogram_quantile` gives it.

    Examples
    --------
    >>> quantile(0.5, [(0.001, 2), (0.002, 4), (float("inf"), 4)])
    0.001
    >>> quantile(0.75, [(0.001, 2), (0.002, 4), (float("inf"), 4)])
    0.0015
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    wanted = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == float("inf") or count == below:
                return low
            return low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low


def _between(before: Sample, after: Sample) -> TrafficInterval:
    counts = {key: count - before.counts.get(key, 0.0) for key, count in after.counts.items()}
    return TrafficInterval(before.at, after.at, counts)


def _counts(families: Iterable[Metric]) -> dict[Series, float]:
    changes: dict[Series, float] = {}
    for family in families:
        for sample in family.samples:
            if sample.name in _KEPT_SERIES:
                changes[(sample.name, *(sample.labels[name] for name in sorted(sample.labels)))] = sample.value
    return changes
