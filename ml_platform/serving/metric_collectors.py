"""Gauges that are updated only when metrics are collected: active requests, queues, online reads, lag of the logs."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ml_platform.cost.summary import read_summary
from ml_platform.features.online.store import OnlineStore
from ml_platform.segment_log.lag import log_lag
from ml_platform.serving.prediction.predictor import Predictor
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings


class Gauges:
    """Puts the state of this worker into its metrics when they are collected, which costs requests nothing."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        predictor: Predictor,
        queues: Sequence[Callable[[], Mapping[str, int]]],
        online: OnlineStore,
        settings: Settings,
    ) -> None:
        self._metrics = metrics
        self._predictor = predictor
        self._queues = queues
        self._online = online
        self._log_folder = settings.inference_log_dir
        self._push_log_folder = settings.push_log_dir
        self._cost_folder = settings.cost_dir
        self._counted = (0, 0)
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Update every gauge."""
        metrics = self._metrics
        metrics.active.set(self._predictor.active)
        for lengths in self._queues:
            for queue, length in lengths().items():
                metrics.queued.labels(queue).set(length)
        with self._lock:
            requested, fetched = self._online.counts()
            from_store = fetched - self._counted[1]
            # Can be negative: a commit while a request is read makes the store fetch rows again.
            from_memory = max(requested - self._counted[0] - from_store, 0)
            metrics.online_reads.labels("memory").inc(from_memory)
            metrics.online_reads.labels("store").inc(from_store)
            self._counted = (requested, fetched)
        for folder in sorted(path for path in self._log_folder.glob("*") if path.is_dir()):
            lag = log_lag(folder)
            metrics.log_lag.labels(folder.name).set(lag.waiting_bytes)
            if lag.ingested_at is not None:
                metrics.log_ingested.labels(folder.name).set(lag.ingested_at.timestamp())
        for view in self._push_log_folder.glob("*/"):
            waiting = sum(log_lag(stream).waiting_bytes for stream in view.glob("*/"))
            metrics.push_log_lag.labels(view.name).set(waiting)
        with suppress(ValueError):  # GET /cost tells of a damaged summary
            if (summary := read_summary(self._cost_folder)) is not None:
                for cost in summary.by.get("model", ()):
                    metrics.cost.labels(cost.name).set(cost.price)
                for budget in summary.budgets:
                    metrics.budget_used.labels(budget.name).set(budget.share)
