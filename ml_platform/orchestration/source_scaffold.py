"""`dg scaffold defs ml_platform.orchestration.SourceTable <name>`: a raw table from your own data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import dagster as dg
from pydantic import BaseModel, Field

from ml_platform.orchestration.scaffolding import whole_or_nothing
from ml_platform.printable import plain

if TYPE_CHECKING:
    from ml_platform.lake.sources.source_inference import GuessedSource

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
            guessed = _guess(params)
            text = guessed.document(request.type_name, folder.name, params.owner)
            folder.mkdir(parents=True, exist_ok=True)
            for note in guessed.notes:
                click.echo(f"{folder.name}: {plain(note)}")
            (folder / "defs.yaml").write_text(text, encoding="utf-8")


def _guess(params: SourceTableParams) -> "GuessedSource":
    """Guess from the path, where there is one; else give an example to be filled in."""
    from ml_platform.lake.sources.source_inference import GuessedSource, guess_source

    if not params.path:
        return GuessedSource(kind=params.kind, source=_SOURCES[params.kind], columns=_EXAMPLE)
    if params.kind == "sql":
        raise ValueError("--path is for files and folders; leave it out of --kind sql")
    return guess_source(params.path, params.kind)
