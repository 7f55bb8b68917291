"""The graph as a file, from which serving and the console answer: they need neither DuckDB nor the project's files."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ml_platform.atomic_files import replace_file
from ml_platform.lineage.objects import LineageDocument, document_of

if TYPE_CHECKING:
    from ml_platform.lineage.objects import Lineage
    from ml_platform.settings import Settings

FILE = "lineage.json"


def lineage_path(settings: "Settings") -> Path:
    """File of the graph."""
    return settings.reports_dir / FILE


def write_lineage(settings: "Settings", lineage: "Lineage", problems: list[str]) -> Path:
    """Replace the stored graph."""
    path = lineage_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = document_of(lineage, datetime.now(UTC).isoformat(timespec="seconds"), problems)
    replace_file(path, msgspec.json.encode(document))
    return path


def read_document(path: Path) -> LineageDocument | None:
    """Read the stored graph; None if there is none yet (raises msgspec.MsgspecError for a damaged file)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LineageDocument)
    except FileNotFoundError:
        return None


def refresh_lineage(settings: "Settings") -> tuple["Lineage", list[str]]:
    """Build the graph of the current project, with its lake and releases, and store it."""
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.lineage.project_graph import build_lineage, read_project
    from ml_platform.registry.releases import ReleaseStore

    lineage, problems = build_lineage(read_project(), Lake(settings.lake_uri), ReleaseStore(settings.releases_dir))
    write_lineage(settings, lineage, problems)
    return lineage, problems
