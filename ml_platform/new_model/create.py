"""Makes a model's folder from a table of the lake, or from a file that becomes one first: all files or none."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ml_platform.features.views.load import load_views
from ml_platform.lake.contracts.contract import ROW, apply_contract
from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.registry import declared_sources, declared_tables
from ml_platform.lake.sources.source_inference import GuessedSource, guess_source
from ml_platform.lake.sources.source_spec import ColumnSpec, SourceSpec
from ml_platform.lake.storage.tables import Lake
from ml_platform.new_model.draft import Wanted, check_name, draft_model
from ml_platform.project import Project
from ml_platform.settings import Settings
from ml_platform.yaml_documents import nearest

SOURCE_COMPONENT = "ml_platform.orchestration.SourceTable"
MOST_ROWS = 500_000  # that guesses are made from; of a larger table as many are drawn


@dataclass(frozen=True)
class CreatedModel:
    """What was written.

    Attributes
    ----------
    folder
        Of the model.
    files
        All files written, the source table's first.
    notes
        What its owner should know, in sentences.
    """

    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """A table's rows, as far as guesses are made from them, and what is declared of it."""

    rows: pl.DataFrame
    contract: Mapping[str, ColumnSpec] | None = None
    key: Sequence[str] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileRows:
    """A file as the table that it would become.

    Attributes
    ----------
    table
        Name of the table.
    rows
        Its rows, with the types that were inferred.
    notes
        What was seen on the way, in sentences.
    """

    table: str
    rows: pl.DataFrame
    notes: tuple[str, ...]


def read_file(data: Path) -> FileRows:
    """Read a CSV or Parquet file as the table that `create_model` makes of it (raises ValueError, OSError)."""
    table = f"raw/{table_name(data)}"
    read = _read(guess_source(str(data.expanduser().resolve())), _source_name(table), Wanted("", "", "").owner)
    return FileRows(table, read.rows, read.notes)


def create_model(
    project: Project,
    settings: Settings,
    wanted: Wanted,
    *,
    data: Path | None = None,
    folder: Path | None = None,
    files: Mapping[str, str] | None = None,
) -> CreatedModel:
    """Write a model's folder into a project.

    Parameters
    ----------
    project
        The project.
    settings
        Where its lake is.
    wanted
        What the owner says.
    data
        A file that is declared as the table first; the table is there already when None.
    folder
        Of the model; `defs/<name>` when None.
    files
        Further files of the folder: name → content.

    Raises
    ------
    LookupError
        When there is no such table or column.
    ValueError, OSError
        When no model can be made of it, or a file cannot be read. Nothing is left behind then.
    """
    check_name(wanted.name)
    folder = folder or project.defs / wanted.name
    if any(folder.glob("*")):
        raise ValueError(f"{folder} is there already: choose another name, or remove it")
    views = load_views(project.defs / "features")
    sources: dict[Path, dict[str, str]] = {}
    if data is None:
        table = _stored(Lake(settings.lake_uri), wanted.table)
    else:
        sources, table = _declared(project, data, wanted.table, wanted.owner, folder)
    draft = draft_model(
        wanted, table.rows, today=datetime.now(UTC).date(), views=views, contract=table.contract, key=table.key
    )
    written = write_folders({**sources, folder: {**draft.files, **(files or {})}})
    return CreatedModel(folder, written, (*table.notes, *draft.notes))


def table_name(file: Path) -> str:
    """Name a table after a file.

    Examples
    --------
    >>> table_name(Path("data/Bank-Calls 2024.csv.gz")), table_name(Path("2024.csv"))
    ('bank_calls_2024', 'table_2024')
    """
    stem = file.name.split(".", 1)[0].lower()
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    return name if name[:1].isalpha() else f"table_{name}".rstrip("_")


def _stored(lake: Lake, name: str) -> _Table:
    """Read a table of the lake, or the source of one that is declared and was not loaded yet."""
    sources = declared_sources()
    contract = sources[name].columns if name in sources else None
    if lake.exists(name):
        rows = lake.read(name)
        count = int(rows.select(pl.len()).collect().item())
        step = -(-count // MOST_ROWS)
        notes = (f"{name} has {count:,} rows; every {step}th was looked at.",) if step > 1 else ()
        return _Table(
            (rows.gather_every(step) if step > 1 else rows).collect(), contract, _key(sources.get(name)), notes
        )
    if name in sources and sources[name].file is not None:
        return _from_source(sources[name])
    declared = sorted(declared_tables())
    if name in declared:
        raise LookupError(f"{name} is declared and was not loaded yet; load it: dg launch --assets {name}")
    known = sorted({*declared, *lake.tables()})
    raise LookupError(
        f"there is no table '{name}'{nearest(name, known)} There are: {', '.join(known) or 'none'}; --data makes one "
        "of a file"
    )


def declare_file(project: Project, data: Path, table: str, folder: Path) -> dict[Path, dict[str, str]]:
    """Declare a file as a table of the lake: folder → file name → content.

    Parameters
    ----------
    project
        The project.
    data
        The file.
    table
        What it becomes, `raw/<name>`.
    folder
        Of the model that is made with it, which the table's is not to be.

    Raises
    ------
    ValueError, OSError
        When the table or its folder is there already, or the file cannot be read.
    """
    return _declared(project, data, table, Wanted("", "", "").owner, folder)[0]


def _declared(
    project: Project, data: Path, table: str, owner: str, folder: Path
) -> tuple[dict[Path, dict[str, str]], _Table]:
    """The declaration of a file, and its rows."""
    short = _source_name(table)
    where = project.defs / (short if project.defs / short != folder else f"{short}_table")
    guessed = _guessed(project, data, table, where)
    return {where: {"defs.yaml": guessed.document(SOURCE_COMPONENT, short, owner)}}, _read(guessed, short, owner)


def _guessed(project: Project, data: Path, table: str, folder: Path) -> GuessedSource:
    if table in declared_tables():
        raise ValueError(f"{table} is declared already: leave --data out, or name another table by --from raw/…")
    if any(folder.glob("*")):
        raise ValueError(f"{folder} is there already: name another table by --from raw/…")
    path = data.expanduser().resolve()
    return guess_source(str(path.relative_to(project.root) if path.is_relative_to(project.root) else path))


def _read(guessed: GuessedSource, table: str, owner: str) -> _Table:
    read = _from_source(SourceSpec.model_validate(guessed.attributes(table, owner)))
    return _Table(read.rows, None, (), (*guessed.notes, *read.notes))


def _from_source(source: SourceSpec) -> _Table:
    """Read a source's rows as its table will have them."""
    raw = raw_table(source)
    verdict = apply_contract(raw.read(None, None), raw.contract, where=raw.source)
    rejected = verdict.rejected.height
    notes = (
        (f"{rejected:,} rows of {raw.source} break the contract of {raw.name} and are left out.",) if rejected else ()
    )
    return _Table(verdict.accepted.drop(ROW), source.columns, _key(source), notes)


def _key(source: SourceSpec | None) -> list[str]:
    return [name for name, column in (source.columns or {}).items() if column.key] if source else []


def _source_name(table: str) -> str:
    schema, _, name = table.partition("/")
    if schema != "raw" or not name:
        raise ValueError(f"--data makes a table raw/<name>, found --from {table}")
    return name


def write_folders(folders: Mapping[Path, Mapping[str, str]]) -> tuple[Path, ...]:
    """Write new files, folder by folder: all of them, or nothing is left (raises OSError)."""
    made: list[Path] = []
    written: list[Path] = []
    try:
        for folder, files in folders.items():
            if not folder.exists():
                made.append(folder)
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                written.append(folder / name)
                (folder / name).write_text(content, encoding="utf-8")
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return tuple(written)
