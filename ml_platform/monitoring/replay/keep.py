"""Keeps the report of a replay: in the release store, and with the challenger's run in MLflow."""

from pathlib import Path

from ml_platform.atomic_files import replace_file
from ml_platform.monitoring.replay.documents import ReplayReport
from ml_platform.monitoring.replay.pages import replay_html, replay_text
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker

FOLDER = "replays"  # of the release store, and of the run's artifacts


def keep(store: ReleaseStore, tracker: Tracker, report: ReplayReport) -> Path:
    """Keep a report as JSON, text and HTML; earlier ones stay. Returns the file in the release store."""
    which = report.challenger_version or report.challenger_digest[:12]
    name = f"{which}-{report.source}-{report.at:%Y%m%dT%H%M%S%f}"
    path = store.folder / FOLDER / report.model / f"{name}.json"
    content = report.model_dump_json(indent=2).encode()
    replace_file(path, content)
    run_id = store.load_manifest(report.challenger_digest).provenance.mlflow_run_id
    if run_id and tracker.has_run(run_id):
        pages = {"json": content, "txt": "\n".join(replay_text(report)).encode(), "html": replay_html(report).encode()}
        tracker.log_files(run_id, {f"{FOLDER}/{name}.{kind}": page for kind, page in pages.items()})
    return path
