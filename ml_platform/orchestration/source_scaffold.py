"""`dg scaffold defs ml_platform.orchestration.SourceTable <name>`: a raw table from your own data."""

from pathlib import Path
from typing import Any, Literal

import dagster as dg
import yaml
from pydantic import BaseModel, Field

from ml_platform.lake.guess import guess_columns, guess_files
from ml_platform.lake.source_spec import resolve

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
    path: str = Field("", description="A file of yours: its columns and types are written down as the contract.")
    owner: str = Field("team@example.com", description="Who answers for the table.")


class SourceTableScaffolder(dg.Scaffolder[SourceTableParams]):
    """Writes a `defs.yaml`."""

    @classmethod
    def get_scaffold_params(cls) -> type[SourceTableParams]:
        """Give the command's options."""
        return SourceTableParams

    def scaffold(self, request: dg.ScaffoldRequest[SourceTableParams]) -> None:
        """Write the folder's file.

        Raises
        ------
        ValueError
            When Python was asked for: a source table is declared in YAML.
        FileNotFoundError
            When `path` names no file.
        """
        if request.scaffold_format != "yaml":
            raise ValueError("a SourceTable is declared in YAML; leave out --format or say --format yaml")
        params = request.params or SourceTableParams.model_validate({})
        folder = Path(request.target_path)
        source, columns = dict(_SOURCES[params.kind]), _EXAMPLE
        if params.path:
            source = {"path": params.path}
            if params.kind == "folder":
                source = {"path": str(Path(params.path).parent), "pattern": f"*{Path(params.path).suffix}"}
            files = guess_files(resolve(params.path))
            source |= files.model_dump(exclude_defaults=True)
            columns = guess_columns(resolve(params.path), files)
        attributes = {
            "name": f"raw/{folder.name}",
            "description": f"What a row of {folder.name} is.",
            "owner": params.owner,
            params.kind: source,
            "columns": columns,
        }
        document = {"type": request.type_name, "attributes": attributes}
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
        (folder / "defs.yaml").write_text(text, encoding="utf-8")
