"""`dg scaffold defs ml_platform.orchestration.SourceTable <name>`: a raw table from your own data."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import click
import dagster as dg
import polars as pl
import yaml
from pydantic import BaseModel, Field

from ml_platform.lake.sources.contract_inference import columns_of
from ml_platform.lake.sources.csv_reader import read_start
from ml_platform.lake.sources.dialect_inference import guess_dialect
from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.sources.inference_notes import notes_of
from ml_platform.lake.sources.source_spec import SourceSpec, resolve
from ml_platform.lake.sources.stored_files import list_folder
from ml_platform.orchestration.scaffolding import whole_or_nothing
from ml_platform.printable import plain

# Kind, source, columns, notes, and whether the source has further columns.
_Guess = tuple[str, dict[str, Any], dict[str, Any], list[str], bool]
_MOST_FILES = 50  # of a folder that are looked at

_SOURCES: dict[str, dict[str, Any]] = {
    "file": {"path": "data/input/rows.csv"},
    "folder": {"path": "data/input", "pattern": "*.csv"},
    "sql": {"url_variable": "SOURCE_DATABASE_URL", "query": "SELECT * FROM rows", "cursor": "updated_at"},
}
_EXAMPLE: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "key": True, "description": "Replace me."},
    "updated_at": {"type": "timestamp"},
    "amount": {"type": "number", "nullable": True, "minimum": 0, "unit": "€"},
}


class SourceTableParams(BaseModel):
    """Options of the scaffold command."""

    kind: Literal["file", "folder", "sql"] = Field("file", description="Where the rows come from.")
    path: str = Field(
        "",
        description="A file of yours, or a folder of them: their columns and types are written down as the contract.",
    )
    owner: str = Field("team@example.com", description="Who answers for the table.")


class SourceTableScaffolder(dg.Scaffolder[SourceTableParams]):
    """Writes a `defs.yaml`, with what should be looked at as comments, and prints these."""

    @classmethod
    def get_scaffold_params(cls) -> type[SourceTableParams]:
        """Give the command's options."""
        return SourceTableParams

    def scaffold(self, request: dg.ScaffoldRequest[SourceTableParams]) -> None:
        """Write the folder's file.

        Raises
        ------
        ScaffoldError
            When Python was asked for (a source table is declared in YAML), `path` names nothing that can be read, or
            the folder's name is no table's. Nothing is left behind then.
        """
        with whole_or_nothing(request):
            params = request.params or SourceTableParams.model_validate({})
            folder = Path(request.target_path)
            example: _Guess = (params.kind, _SOURCES[params.kind], _EXAMPLE, [], False)
            kind, source, columns, notes, has_unlisted = _guessed(params) if params.path else example
            attributes: dict[str, Any] = {
                "name": f"raw/{folder.name}",
                "description": f"What a row of {folder.name} is.",
                "owner": params.owner,
                kind: source,
                "columns": columns,
                **({"unlisted": "drop"} if has_unlisted else {}),
            }
            SourceSpec.model_validate(attributes)
            document = {"type": request.type_name, "attributes": attributes}
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
            folder.mkdir(parents=True, exist_ok=True)
            for note in notes:
                click.echo(f"{folder.name}: {plain(note)}")
            said = "".join(f"# {plain(note)}\n" for note in notes)
            (folder / "defs.yaml").write_text(said + text, encoding="utf-8")


def _guessed(params: SourceTableParams) -> _Guess:
    """Guess kind, source and columns from a file or a folder; also what its owner must know of the guess."""
    if params.kind == "sql":
        raise ValueError("--path is for files and folders; leave it out of --kind sql")
    place = resolve(params.path)
    if isinstance(place, Path) and not place.exists():
        raise FileNotFoundError(f"no file or folder {place}; a path starts at the project's root, or with /")
    is_folder = place.is_dir() if isinstance(place, Path) else not PurePosixPath(place).suffix
    if is_folder:
        pattern, found = _files_in(place)
        paths = [place / name if isinstance(place, Path) else f"{place}/{name}" for name in found]
        kind, source = "folder", {"path": params.path, "pattern": pattern}
    else:
        paths, kind, source = [place], params.kind, {"path": params.path}
        if kind == "folder":
            source = {"path": str(Path(params.path).parent), "pattern": f"*{Path(params.path).suffix}"}
    paths = [path for path in paths if read_start(path, 1)]
    if not paths:
        raise ValueError(f"{place} is empty: there is nothing to guess from")
    dialect = guess_dialect(paths[0])
    files, notes = dialect.files, list(dialect.notes)
    notes += _notes_of_last_lines(paths, files)
    frames = [read_file(path, files) for path in paths]
    differing = [path for path, frame in zip(paths, frames, strict=True) if frame.schema != frames[0].schema]
    if differing:
        raise ValueError(f"{differing[0]} has other columns than {paths[0]}: scaffold from one of them by --path")
    rows = pl.concat(frames)
    if not rows.columns:
        raise ValueError(f"{place} is empty: there is nothing to guess from")
    if rows.is_empty():
        names = ", ".join(rows.columns)[:200]
        raise ValueError(
            f"{place} has a header ({names}) and no rows, of which types could be guessed: give one with rows"
        )
    columns = columns_of(rows)
    if files.header == "none":
        first = " ".join(", ".join(map(str, rows.row(0))).split())
        notes.append(f"The first line looks like a row ({first[:80]}): give the columns names.")
    if omitted := [name or "(no name)" for name in rows.columns if name not in columns]:
        notes.append(f"Columns are left out that have no name, or no type here: {', '.join(omitted)}.")
    notes += notes_of(rows, columns)
    if not columns:
        raise ValueError(
            f"{place} has no column with a name and a type that a table can have: {', '.join(rows.columns)}"
        )
    return kind, source | files.model_dump(mode="json", exclude_defaults=True), columns, notes, bool(omitted)


def _notes_of_last_lines(paths: Sequence[Path | str], files: Files) -> list[str]:
    """Notes of the further files' last lines; refuses files of which only some end in lines that are no rows."""
    notes = []
    for path in paths[1:]:
        other = guess_dialect(path)
        if other.files.skip_last_lines != files.skip_last_lines:
            raise ValueError(
                f"{path} ends in {other.files.skip_last_lines} lines that look like no rows (totals, footers), "
                f"{paths[0]} in {files.skip_last_lines}: scaffold from one of them by --path and --kind folder, and "
                "have the files end alike, as skip_last_lines is one for all"
            )
        notes += [f"{path}: {note}" for note in other.notes if note.startswith("The last line ")]
    return notes


def _files_in(folder: Path | str) -> tuple[str, list[str]]:
    """Give the pattern of a folder's files, and the names of some of them, evenly spread."""
    for depth in ("", "**/"):
        names = [file.name for file in list_folder(folder, f"{depth}*")]
        suffixes = {"".join(PurePosixPath(name).suffixes[-2:]) for name in names if "." in name}
        suffixes = {suffix if suffix.endswith(".gz") else PurePosixPath(suffix).suffix or suffix for suffix in suffixes}
        if len(suffixes) > 1:
            raise ValueError(f"{folder} has files of several kinds ({', '.join(sorted(suffixes))}): give one by --path")
        if names:
            step = -(-len(names) // _MOST_FILES)
            return f"{depth}*{suffixes.pop() if suffixes else ''}", names[::step]
    raise ValueError(f"{folder} has no files")
