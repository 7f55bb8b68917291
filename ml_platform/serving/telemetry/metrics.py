"""Prometheus metrics of serving. Workers share a folder of memory-mapped values, so each can report for all of them."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from ml_platform.serving.stage_timer import SAMPLED, StageTimer
from ml_platform.serving.telemetry.worker_ids import forget_ended

SHARED_FOLDER = (
    "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client when it is imported; set by `python -m ml_platform.serving`
)
NAMESPACE = "ml_platform"
_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_STAGE_SECONDS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.1, 1.0)

disable_created_metrics()  # a second series per counter, which only says when it was first seen


class AllWorkers(MultiProcessCollector):
    """Sums over all workers; one that is just starting has files that are empty for a moment, and cannot be read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, str(folder))
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Every series with its value."""
        merged: Iterable[Metric] = self.merge([str(path) for path in self._folder.glob("*.db") if _is_filled(path)])
        return merged


class ModelMetrics:
    """The series of one version, so that their labels are looked up only once."""

    def __init__(self, metrics: "Metrics", model: str, version: str) -> None:
        self.answered = metrics.requests.labels(model, "200")
        self.seconds = metrics.seconds.labels(model, version)
        self.predictions = metrics.predictions.labels(model, version)
        self.intervals = metrics.intervals.labels(model, version)
        self.interval_width = metrics.interval_width.labels(model, version)
        self._stage_seconds = metrics.stage_seconds
        self._model = model

    def observe(self, stages: StageTimer) -> None:
        """Record the time of each stage of a request."""
        for stage, _, seconds in stages.spans():
            self._stage_seconds.labels(self._model, stage).observe(seconds)


class Metrics:
    """The metrics of one app.

    With `PROMETHEUS_MULTIPROC_DIR` set before start (as `python -m ml_platform.serving --workers N` does), `exposition`
    sums over all workers; without it, it covers this process only.

    Examples
    --------
    >>> metrics = Metrics()
    >>> metrics.requests.labels("flight_delay", "200").inc()
    >>> b'ml_platform_requests_total{model="flight_delay",status="200"} 1.0' in metrics.exposition()
    True
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Prediction requests by answer status.", "model", "status")
        self.predictions = self._counter("predictions", "Rows answered, by version.", "model", "version")
        self.intervals = self._counter(
            "intervals", "Rows answered with an interval or a set of classes, by version.", "model", "version"
        )
        self.interval_width = self._counter(
            "interval_width",
            "Sum of these intervals' widths, in the target's unit, or of the sets' numbers of classes: by "
            "`intervals`, their mean.",
            "model",
            "version",
        )
        self.not_found = self._counter(
            "features_not_found",
            "Look-ups without a value: entity unknown, or value past its TTL.",
            "model",
            "view",
        )
        self.log_failures = self._counter(
            "inference_log_failures", "Requests refused because the log could not be written.", "model"
        )
        self.log_lost = self._counter("inference_log_lost", "Rows answered, but lost to a log that failed.", "model")
        self.log_unsampled = self._counter(
            "inference_log_unsampled", "Rows answered and not sampled for the log.", "model"
        )
        self.degraded = self._counter("degraded", "Answers given although the online store or the log failed.", "model")
        self.contract_violations = self._counter(
            "contract_violations",
            "Values that break the contract of the model's inputs, refused or answered with a flag.",
            "model",
            "field",
            "kind",
        )
        self.shadowed = self._counter("shadow_predictions", "Rows scored by shadow versions.", "model", "version")
        self.shadow_lost = self._counter(
            "shadow_lost", "Requests that a shadow version did not score, by reason.", "model", "version", "reason"
        )
        self.pushed = self._counter("pushed_rows", "Rows pushed to feature views and accepted.", "view")
        self.pushed_stale = self._counter(
            "pushed_rows_stale", "Of these, rows older than what the online store held.", "view"
        )
        self.pushes_refused = self._counter("pushes_refused", "Pushes refused, by answer status.", "view", "status")
        self.lookups = self._counter(
            "feature_lookups", "Requests for features of a view or service, by answer status.", "name", "status"
        )
        self.lookup_rows = self._counter("feature_lookup_rows", "Rows of these that were answered.", "name")
        self.lookup_keys = self._counter(
            "feature_lookup_keys",
            "Keys looked up for them: present, expired (older than the TTL), unknown, or null_key.",
            "name",
            "view",
            "state",
        )
        self.swaps = self._counter("swaps", "Releases that took traffic.", "model")
        self.refusals = self._counter("release_refusals", "Releases that failed their checks.", "model")
        self.alert_failures = self._counter(
            "alert_failures", "Alerts that could not be written (file), or tries that the webhook refused.", "sink"
        )
        self.rejected_early = self._counter(
            "rejected_early", "Requests refused before they reached a route, by status.", "status"
        )
        self.turned_away = self._counter("turned_away", "Deprecated, the same as rejected_early.", "status")
        self.online_reads = self._counter(
            "online_reads", "Rows looked up, by where they were found: this worker's memory or the store.", "source"
        )
        self.seconds = self._histogram(
            "request_seconds", "Time from the request's headers to the end of its answer.", _SECONDS, "model", "version"
        )
        self.stage_seconds = self._histogram(
            "stage_seconds", f"Time of each stage, of one request in {SAMPLED}.", _STAGE_SECONDS, "model", "stage"
        )
        self.lookup_seconds = self._histogram(
            "feature_lookup_seconds", "Time from the body of such a request to its encoded answer.", _SECONDS, "name"
        )
        self.active = self._gauge("active_requests", "Requests with a body under way.", mode="livesum")
        self.queued = self._gauge("queue_length", "Requests waiting for a thread.", "queue", mode="livesum")
        self.log_lag = self._gauge("inference_log_lag_bytes", "Of the inference log, not in its table yet.", "model")
        self.push_log_lag = self._gauge("push_log_lag_bytes", "Of the push log, not in its table yet.", "view")
        self.log_ingested = self._gauge(
            "inference_log_ingested_timestamp_seconds", "When an ingest of the inference log last ended.", "model"
        )
        self.refused = self._gauge("release_refused", "1 while the newest release is refused.", "model")
        self.shadow_refused = self._gauge("shadow_refused", "1 while a shadow version is refused.", "model")
        self.version = self._gauge("serving_version", "Version with the largest share of traffic.", "model")
        self.revision = self._gauge("endpoint_revision", "Revision of the endpoint document in force.", "model")
        self.cpu_seconds = self._counter(
            "serving_cpu_seconds",
            "CPU time of the workers, by the model whose requests took it; an empty name while there were none.",
            "model",
        )
        self.cost = self._gauge("cost_30_days", "Price of a model in 30 days, as last summed up.", "model")
        self.budget_used = self._gauge("budget_used_ratio", "Share of a budget that is used, lately.", "budget")
        self.before_collecting: list[Callable[[], None]] = []  # functions that update gauges

    def version_series(self, model: str, version: int) -> ModelMetrics:
        """Series of one version."""
        return ModelMetrics(self, model, str(version))

    def count_cpu(self, model: str, seconds: float) -> None:
        """Count CPU time for a model."""
        self.cpu_seconds.labels(model).inc(seconds)

    def exposition(self) -> bytes:
        """Every series in Prometheus' text format."""
        return generate_latest(self._merged())

    def collect(self) -> list[Metric]:
        """Every series with its value."""
        return list(self._merged().collect())

    def _merged(self) -> CollectorRegistry:
        """The registry of this process, or of all workers together."""
        for refresh in self.before_collecting:
            refresh()
        if not os.environ.get(SHARED_FOLDER):
            return self.registry
        folder = Path(os.environ[SHARED_FOLDER])
        forget_ended(folder)
        merged = CollectorRegistry()
        merged.register(AllWorkers(folder))
        return merged

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str, mode: Literal["livemax", "livesum"] = "livemax") -> Gauge:
        return Gauge(name, about, labels, namespace=NAMESPACE, registry=self.registry, multiprocess_mode=mode)

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, about, labels, buckets=buckets, namespace=NAMESPACE, registry=self.registry)


def _is_filled(path: Path) -> bool:
    with suppress(FileNotFoundError):  # the gauges of a worker that has ended
        return path.stat().st_size > 0
    return False
