"""Prometheus metrics of a stream's worker, beside those of serving that it shares (predictions, contract, look-ups)."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

NAMESPACE = "ml_platform_stream"
_AGES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
_BATCHES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


class StreamMetrics:
    """The series of one worker.

    Parameters
    ----------
    registry
        Where they are registered; serving's, so that both are exposed together.

    Examples
    --------
    >>> metrics = StreamMetrics(CollectorRegistry())
    >>> metrics.read.labels("flight_delay").inc(3)
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, ("model", *labels), namespace=NAMESPACE, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(name, about, ("model", *labels), namespace=NAMESPACE, registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, about, ("model",), namespace=NAMESPACE, buckets=buckets, registry=registry)

        self.read = counter("messages_read", "Messages read from the source.")
        self.answered = counter("messages_answered", "Messages answered, and committed.")
        self.dead_letters = counter("dead_letters", "Messages that were not answered, by kind.", "kind")
        self.restarts = counter("restarts", "Times that everything was opened anew after an error.")
        self.table_rows = counter(
            "table_rows", "Answers and dead letters committed to Delta tables, by table.", "table"
        )
        self.lag = gauge("lag_messages", "Messages that wait at the source, by partition.", "partition")
        self.table_lag = gauge(
            "table_lag_messages", "Answers and dead letters that wait to be in their table.", "table"
        )
        self.last_message = gauge(
            "last_message_timestamp_seconds", "When the broker got the newest message that was answered."
        )
        self.running = gauge(
            "running", "1 while scorer or sink works or waits for messages, 0 while something is not there.", "part"
        )
        self.age = histogram("age_seconds", "From when the broker got a message until its answer was committed.", _AGES)
        self.batch = histogram("batch_messages", "Messages scored at once.", _BATCHES)
        self.seconds = histogram("batch_seconds", "Time of scoring such a batch and committing its answers.", _AGES)
