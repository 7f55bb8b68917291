"""`ml-platform stream features`: keeps the windows of rolling views up to date from a stream of events."""

import logging
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.distribution import ExtraMissing
from ml_platform.processes.stop_signals import stop_on_signals
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop
from ml_platform.yaml_documents import SpecError, unknown

if TYPE_CHECKING:
    from ml_platform.features.views.view import FeatureView


def features(
    view: Annotated[
        str | None, typer.Argument(help="A view with `stream`, or its table, e.g. raw/sales; none with --status.")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Show how the streamed views do, and run nothing.")] = False,
    look_up: Annotated[
        str | None, typer.Option(help="Print what the online store has now of an entity, e.g. A or A,17; run nothing.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port of 127.0.0.1 for Prometheus; none when left out.")
    ] = None,
) -> None:
    """Keep streamed views up to date until SIGTERM or Ctrl-C; exit code 1 wants a person, 3: another runs already.

    All streamed views of a table are kept by one process. Example: ml-platform stream features shop_sales
    """
    try:
        tables = project_streams()
        if status:
            _tell(tables, view)
            return
        if view is None:
            stop(f"which view? Streamed are: {', '.join(_names(tables)) or 'none'}")
        table = chosen_table(tables, view)
        if look_up is not None:
            _show(next((one for one in tables[table] if one.name == view), tables[table][0]), look_up)
            return
    except (LookupError, ValueError, SpecError, ProjectNotFound, ExtraMissing) as error:
        stop(str(error))
    _log_to_stderr()
    with stop_on_signals() as ending:
        code = run_table(tables[table], Settings(), ending, metrics_port=metrics_port)
    raise typer.Exit(code)


def run_table(
    views: "list[FeatureView]", settings: Settings, stop: threading.Event, *, metrics_port: int | None = None
) -> int:
    """Keep the streamed views of one table until `stop` is set; gives the exit code."""
    from prometheus_client import CollectorRegistry, start_http_server

    from ml_platform.features.online.open import open_online_store
    from ml_platform.features.streaming.worker import FeatureWorker
    from ml_platform.lake.storage.tables import Lake

    registry = CollectorRegistry()
    worker = FeatureWorker(
        Lake(settings.lake_uri),
        views,
        lambda: open_online_store(settings.online_uri),
        settings.feature_streams_dir,
        registry=registry,
        metrics_port=metrics_port,
    )
    if metrics_port is None:
        return worker.run(stop)
    server, _ = start_http_server(metrics_port, "127.0.0.1", registry)
    try:
        return worker.run(stop)
    finally:
        server.shutdown()
        server.server_close()


def project_streams() -> "dict[str, list[FeatureView]]":
    """The project's streamed views, by the table that they fill.

    Raises
    ------
    ValueError
        If a file declares no view, or views of one table declare different streams.
    """
    from ml_platform.features.streaming.tables import streamed_tables
    from ml_platform.features.views.load import load_views

    folder = current_project().defs / "features"
    return streamed_tables(load_views(folder))


def chosen_table(tables: "dict[str, list[FeatureView]]", name: str) -> str:
    """The table of a streamed view, or the table itself.

    Raises
    ------
    LookupError
        If no view of this name is streamed.
    """
    for table, views in tables.items():
        if name == table or name in {view.name for view in views}:
            return table
    if not tables:
        raise LookupError(f"'{name}': no view of this project declares a `stream`")
    raise LookupError(unknown(name, _names(tables), what="streamed view"))


def _names(tables: "dict[str, list[FeatureView]]") -> list[str]:
    return sorted(view.name for views in tables.values() for view in views)


def _show(view: "FeatureView", entity: str) -> None:
    from ml_platform.features.online.open import open_online_store
    from ml_platform.features.streaming.lookup import rows_at

    key = _key(view, entity)
    with open_online_store(Settings().online_uri) as store:
        [row] = rows_at(store, view.name, [key])
    if row is None:
        stop(f"the online store has nothing of {view.name} for {dict(zip(view.entity, key, strict=True))}")
    say(f"{view.name} since {row.event_time:%Y-%m-%d %H:%M:%S.%f} UTC")
    for name, value in sorted(row.values.items()):
        say(f"  {name}: {value}")


def _key(view: "FeatureView", entity: str) -> tuple[str | int | bool, ...]:
    """Values of an entity's columns from comma-separated text (raises ValueError)."""
    assert view.stream is not None
    texts = entity.split(",")
    if len(texts) != len(view.entity):
        raise ValueError(f"--look-up: wanted {','.join(view.entity)}, found {entity!r}")
    key: list[str | int | bool] = []
    for name, text in zip(view.entity, texts, strict=True):
        kind = view.stream.columns[name]
        if kind == "timestamp":
            raise ValueError(f"--look-up: {name} is a timestamp; look it up over HTTP")
        key.append(text if kind == "string" else int(text) if kind == "integer" else text == "true")
    return tuple(key)


def _tell(tables: "dict[str, list[FeatureView]]", name: str | None) -> None:
    from ml_platform.features.streaming.status import read_status

    shown = tables if name is None else {chosen_table(tables, name): []}
    if not shown:
        say("No view of this project declares a `stream`.")
    for table in sorted(shown):
        one = read_status(Settings().feature_streams_dir, table)
        names = ", ".join(view.name for view in tables[table])
        if one is None:
            say(f"{table} ({names}): no process has run here yet: ml-platform stream features {tables[table][0].name}")
            continue
        say(f"{table} ({names}): {one.problem() or 'running'}; process {one.pid} on {one.host}, {one.source}")
        say(f"  {one.lag:,} messages wait; {one.events_per_second:g} events a second; newest event {one.newest_event}")
        late = f"{one.late:,} late and corrected, {one.too_late:,} too late (kept, not counted)"
        say(f"  {one.events:,} events, {late}, {one.refused:,} refused; watermark {one.watermark}")
        for reason, number in sorted(one.reasons.items(), key=lambda item: -item[1])[:5]:
            say(f"    {number:,} × {reason}")


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("streams")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
