"""Erases entities from files beside the lake: outputs that can be made again, and artifacts that hold rows."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ml_platform.atomic_files import replace_file
from ml_platform.governance.erasure.subjects import DISTINCTIVE, Subjects
from ml_platform.registry.artifacts import FOLDER as MLFLOW_ARTIFACTS
from ml_platform.settings import Settings

# What is removed as a whole when it names somebody: each can be made again by what made it.
OUTPUTS = {
    "automl": "runs of AutoML, with their notebooks",
    "notebooks": "runs of notebooks, with their outputs and pages",
    "reports": "HTML reports",
    "scoring": "parts of scorings under way",
    "handoffs": "what assets handed on",
    "studies": "trials of searches",
    "jupyter": "layout and checkpoints of JupyterLab",
    "logs": "output of processes",
    "alerts": "conditions and alerts",
    "streams": "statuses of streams, and which dead letters were sent again",
    MLFLOW_ARTIFACTS: "artifacts of runs: samples, plots, tables",
}
# Never changed: bundles are named by their digest, and what links lines to one another cannot be rewritten.
KEPT = {
    "releases": "released bundles and cards",
    "in_force": "which document was in force",
    "dagster_home": "history of runs",
}
_ROWS = {".parquet", ".csv", ".jsonl", ".ndjson"}
_SHOWN = 5  # words of a file that are named
_MOST = 512 * 2**20  # bytes of a file that is searched


@dataclass
class FileErasure:
    """What was done to the files of one folder."""

    folder: str
    searched: int = 0
    rows_removed: int = 0
    removed: list[str] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)
    lookalikes: list[str] = field(default_factory=list)


def erase_from_files(settings: Settings, everyone: Sequence[Subjects], *, dry_run: bool = False) -> list[FileErasure]:
    """Search every folder of the platform's home: take rows out of tables, remove other outputs, name what is kept."""
    done = []
    for name in (*OUTPUTS, *KEPT):
        folder = settings.releases_dir if name == "releases" else settings.home / name
        erasure = FileErasure(name)
        for path in _files(folder):
            erasure.searched += 1
            shown = str(path.relative_to(settings.home)) if path.is_relative_to(settings.home) else str(path)
            if not holds(path, everyone):
                erasure.lookalikes += _lookalikes(path, shown, everyone)
                continue
            if name in KEPT or (path.parent / "manifest.json").exists():
                erasure.remains.append(f"{shown}: {KEPT.get(name, 'of a bundle')}; {_what_to_do(name)}")
            elif dry_run:
                erasure.removed.append(shown)
            elif rows := _take_out(path, everyone):
                erasure.rows_removed += rows
                erasure.lookalikes += _lookalikes(path, shown, everyone)
            else:
                path.unlink(missing_ok=True)
                erasure.removed.append(shown)
        done.append(erasure)
    return done


def holds(path: Path, everyone: Sequence[Subjects]) -> bool:
    """Whether a file names one of the entities: in a column or field that identifies it, or by a text long enough."""
    content = _content(path)
    if _stands_in(content, everyone):
        return True
    if path.suffix in {".parquet", ".csv"}:
        rows = _frame(path, content)
        return rows is not None and bool(_mask(rows, everyone).any())
    if path.suffix in {".json", ".jsonl", ".ndjson", ".ipynb", ".html", ".md", ".txt"}:
        return _said(content, everyone)
    return False


def unsearched(settings: Settings) -> list[str]:
    """Files that are too large to be searched."""
    return [
        f"{path}: larger than {_MOST // 2**20} MB and not searched"
        for name in OUTPUTS
        for path in _files(settings.home / name)
        if path.stat().st_size > _MOST
    ]


def _content(path: Path) -> bytes:
    """Bytes of a file; none of one that is too large, gone or not ours to read."""
    try:
        return b"" if path.stat().st_size > _MOST else path.read_bytes()
    except (FileNotFoundError, PermissionError):
        return b""


def _stands_in(content: bytes, everyone: Sequence[Subjects]) -> bool:
    return any(one.stands_in(content) for one in everyone)


def _lookalikes(path: Path, shown: str, everyone: Sequence[Subjects]) -> list[str]:
    words = {word for one in everyone for word in one.lookalikes(_content(path))}
    if not words:
        return []
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return [f"{shown}: may be of another id, and was left: {', '.join(sorted(words)[:_SHOWN])}{more}"]


def _take_out(path: Path, everyone: Sequence[Subjects]) -> int:
    """Write a table without rows of the entities; 0 where it is none, or has none in a column of theirs."""
    if path.suffix not in _ROWS:
        return 0
    content = path.read_bytes()
    if path.suffix in {".jsonl", ".ndjson"}:
        lines = content.splitlines(keepends=True)
        left = [line for line in lines if not _said(line, everyone) and not _stands_in(line, everyone)]
        replace_file(path, b"".join(left))
        return len(lines) - len(left)
    rows = _frame(path, content)
    if rows is None:
        return 0
    mask = _mask(rows, everyone)
    kept, buffer = rows.filter(~mask), io.BytesIO()
    kept.write_parquet(buffer) if path.suffix == ".parquet" else kept.write_csv(buffer)
    if _stands_in(buffer.getvalue(), everyone):
        return 0
    replace_file(path, buffer.getvalue())
    return int(mask.sum())


def _frame(path: Path, content: bytes) -> pl.DataFrame | None:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(io.BytesIO(content))
        return pl.read_csv(io.BytesIO(content), infer_schema=False)
    except (pl.exceptions.PolarsError, OSError, ValueError):
        return None


def _mask(rows: pl.DataFrame, everyone: Sequence[Subjects]) -> pl.Series:
    """Rows with one of the texts in a column of the entity, or, where it is long enough, as the whole of any text."""
    mask = pl.Series("mask", [False]).new_from_index(0, rows.height)
    distinctive = [text for one in everyone for text in one.texts if len(text) >= DISTINCTIVE]
    for name, dtype in rows.schema.items():
        if distinctive and dtype == pl.String:
            mask = mask | rows[name].is_in(distinctive).fill_null(False)
        for one in everyone:
            if name in one.declaration.names_in_files:
                mask = mask | one.matches("", rows[name])
    return mask


def _said(content: bytes, everyone: Sequence[Subjects]) -> bool:
    return any(one.is_said_in(content) for one in everyone)


def _files(folder: Path) -> Iterator[Path]:
    for at, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(at, name)
            if path.is_file() and not path.is_symlink() and not name.endswith(".lock"):
                yield path


def _what_to_do(name: str) -> str:
    if name in ("releases", MLFLOW_ARTIFACTS):
        return "train the model anew, then ml-platform models prune --bundles removes the bundle"
    return "delete the run in the Dagster UI" if name == "dagster_home" else "it is replaced with the next one"
