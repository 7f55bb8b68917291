"""The metrics at `/metrics`, from the objects that count them."""

from docs.generator.markdown import page, table
from ml_platform.features.streaming.metrics import FeatureStreamMetrics
from ml_platform.serving.telemetry.metrics import NAMESPACE, Metrics
from ml_platform.stream_scoring.metrics import StreamMetrics

_SUFFIX = {"counter": "_total", "histogram": "", "gauge": ""}


def exposed() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return kind, labels and meaning of every metric by the name that a query uses."""
    metrics = {}
    serving = Metrics()
    streams = (StreamMetrics(serving.registry), FeatureStreamMetrics(serving.registry))
    for collector in (one for metrics_of in (serving, *streams) for one in vars(metrics_of).values()):
        if hasattr(collector, "_labelnames"):
            name = f"{collector._name}{_SUFFIX[collector._type]}"
            metrics[name] = (collector._type, collector._labelnames, collector._documentation)
    return metrics


def metrics_page() -> str:
    """Return the page of all metrics."""
    rows = (
        [f"`{name}`", kind, " ".join(f"`{label}`" for label in labels), meaning]
        for name, (kind, labels, meaning) in sorted(exposed().items())
    )
    return page(
        "Metrics",
        f"""`GET /metrics` exposes these in Prometheus' text format, summed over the workers of a server; all names
begin with `{NAMESPACE}_`. Those that begin with `{NAMESPACE}_stream_` are exposed by the workers of
[streams](../how-to/serving/streams.md), on the port of `--metrics-port`, beside those of serving; those that begin with
`{NAMESPACE}_feature_stream_` by the processes of [streamed features](../how-to/features/streaming-features.md). A
histogram has the series `…_bucket`, `…_sum` and `…_count`. [Observe the server](../how-to/serving/observe.md) shows how
to use them, `deploy/` has dashboards and alert rules over them.""",
        table(["metric", "kind", "labels", "meaning"], rows),
    )
