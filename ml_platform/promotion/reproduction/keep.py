"""Keeps the report of a reproduction: in the release store, and at the version and its run in MLflow."""

import msgspec

from ml_platform.promotion.reconcile import versions_of
from ml_platform.promotion.reproduction.pages import reproduction_html, reproduction_text
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.reproductions import Reproduction, store_reproduction
from ml_platform.registry.tracking import Tracker
from ml_platform.registry.version_notes import REPRODUCED_TAG

FOLDER = "reproductions"  # of the run's artifacts


def keep(store: ReleaseStore, tracker: Tracker, report: Reproduction) -> tuple[str, ...]:
    """Keep a report, as JSON, text and HTML; returns where it is not, with the reasons."""
    path = store_reproduction(store, report)
    entry = next((one for one in versions_of(tracker, report.model) if int(one.version) == report.version), None)
    if entry is None:
        return (f"MLflow does not have version {report.version} any more: the report is in the release store alone",)
    tracker.client.set_model_version_tag(report.model, str(report.version), REPRODUCED_TAG, report.line)
    if not entry.run_id or not tracker.has_run(entry.run_id):
        return (
            "the version's run in MLflow was deleted: the report is in the release store, and a tag of the version",
        )
    pages = {
        "json": msgspec.json.format(msgspec.json.encode(report), indent=2),
        "txt": "\n".join(reproduction_text(report)).encode(),
        "html": reproduction_html(report).encode(),
    }
    tracker.log_files(entry.run_id, {f"{FOLDER}/{path.stem}.{kind}": content for kind, content in pages.items()})
    return ()
