"""Runs the workers of one stream in this process: what serves, the inference log, scorer and copy, until a signal."""

import threading
from contextlib import ExitStack, closing
from typing import Literal

from ml_platform.inference.log import InferenceLog
from ml_platform.inference.outcomes import OutcomeLog
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings
from ml_platform.spec.stream import Stream
from ml_platform.stream_scoring.batch_scorer import BatchScorer
from ml_platform.stream_scoring.metrics import StreamMetrics
from ml_platform.stream_scoring.report import Report
from ml_platform.stream_scoring.served import Served
from ml_platform.stream_scoring.worker import STOPPED, CopyPart, ScorerPart, StreamPart, run_part
from ml_platform.streams.open import describe_sink, describe_source, open_answer_sink, open_copies, open_source

Parts = Literal["all", "scorer", "sink"]


def run_stream(
    model: str,
    stream: Stream,
    settings: Settings,
    options: ServingSettings,
    *,
    stop: threading.Event,
    worker: tuple[int, int] = (1, 1),
    parts: Parts = "all",
    metrics_port: int | None = None,
) -> int:
    """Answer the messages of a stream until `stop` is set; gives the exit code.

    Parameters
    ----------
    model, stream
        Name of the model, and what its `stream:` declares.
    settings, options
        Where releases, online store, logs and tables are; what happens when the online store or the log fails.
    stop
        Set by a signal: what was read is answered and committed, then this returns.
    worker
        Number of this worker, and how many there are.
    parts
        What runs here: the scorer, the copy to tables, or both.
    metrics_port
        Port of 127.0.0.1 for Prometheus; none when None.

    Raises
    ------
    ValueError
        When there is nothing to do for the part that is wanted.
    OSError
        When the port is taken.
    """
    tables = list(stream.tables()) if stream.sink.topic is not None else []
    if parts == "sink" and not tables:
        raise ValueError(
            f"{model}: there is nothing to copy: "
            + ("the scorer writes the table itself" if stream.sink.topic is None else "stream.sink declares no table")
        )
    serving_metrics = Metrics()
    metrics = StreamMetrics(serving_metrics.registry)

    def report(part: Literal["scorer", "sink"], source: str, target: str) -> Report:
        return Report(
            settings.streams_dir, metrics, model=model, part=part, worker=worker, source=source, target=target,
            metrics_port=metrics_port,
        )  # fmt: skip

    with ExitStack() as opened:
        if metrics_port is not None:
            from prometheus_client import start_http_server

            server, _ = start_http_server(metrics_port, "127.0.0.1", serving_metrics.registry)
            opened.callback(server.server_close)
            opened.callback(server.shutdown)
        chosen: list[StreamPart] = []
        if parts in ("all", "scorer"):
            log = opened.enter_context(closing(InferenceLog(settings.inference_log_dir)))
            outcomes = opened.enter_context(closing(OutcomeLog(settings.outcomes_dir)))
            served = opened.enter_context(closing(Served(model, settings, options, serving_metrics)))
            scorer = BatchScorer(
                model, stream, log=log, outcomes=outcomes, metrics=serving_metrics,
                answer_without_log=options.log_fallback == "count",
            )  # fmt: skip
            told = report("scorer", describe_source(stream.source), describe_sink(stream))
            chosen.append(
                ScorerPart(
                    model,
                    stream,
                    worker=worker,
                    slot=served.slot,
                    scorer=scorer,
                    report=told,
                    metrics=metrics,
                    source=lambda: open_source(stream.source, model, settings),
                    sink=lambda: open_answer_sink(stream, model, settings.lake_uri),
                )
            )
        if parts in ("all", "sink") and tables:
            told = report("sink", f"topic {stream.sink.topic}", f"table {', '.join(tables)}")
            chosen.append(
                CopyPart(
                    model,
                    stream,
                    worker=worker,
                    report=told,
                    metrics=metrics,
                    copies=lambda: open_copies(stream, model, settings.lake_uri),
                )
            )
        return _run_all(chosen, stop, metrics)


def _run_all(parts: list[StreamPart], stop: threading.Event, metrics: StreamMetrics) -> int:
    """Run parts side by side; when one ends, the others end too. Gives the code of the first that went wrong."""
    codes: list[int] = []
    errors: list[BaseException] = []

    def run(part: StreamPart) -> None:
        try:
            codes.append(run_part(part, stop, metrics))
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that can
            errors.append(error)
        finally:
            stop.set()

    others = [threading.Thread(target=run, args=(part,), name=part.report.status.part) for part in parts[1:]]
    for thread in others:
        thread.start()
    run(parts[0])
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
    return next((code for code in codes if code != STOPPED), STOPPED)
