"""Prometheus metrics of the process that keeps streamed views."""

from prometheus_client import CollectorRegistry, Counter, Gauge

NAMESPACE = "ml_platform_feature_stream"


class FeatureStreamMetrics:
    """The series of one process, by table.

    Examples
    --------
    >>> metrics = FeatureStreamMetrics(CollectorRegistry())
    >>> metrics.events.labels("raw/sales").inc(3)
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str) -> Counter:
            return Counter(name, about, ("table",), namespace=NAMESPACE, registry=registry)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(name, about, ("table",), namespace=NAMESPACE, registry=registry)

        self.events = counter("events", "Events taken.")
        self.late = counter("late_events", "Events that arrived after newer ones and were corrected.")
        self.too_late = counter("too_late_events", "Events that arrived later than `lateness`: kept, not counted.")
        self.refused = counter("refused_messages", "Messages that are no events and went to the quarantine.")
        self.written = counter("written_timelines", "Values of entities written to the online store.")
        self.landed = counter("landed_rows", "Rows committed to the table.")
        self.restarts = counter("restarts", "Times that everything was opened anew after an error.")
        self.lag = gauge("lag_messages", "Messages that wait at the source.")
        self.landing_bytes = gauge("landing_bytes", "Bytes that wait to be committed to the table.")
        self.watermark = gauge(
            "watermark_timestamp_seconds", "Instant before which an event that arrives now would be too late."
        )
        self.newest = gauge("newest_event_timestamp_seconds", "Time of the newest event.")
        self.running = gauge("running", "1 while the process takes or waits for events, 0 while something is missing.")
