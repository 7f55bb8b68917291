"""The raw tables that the project declares, by name."""

import importlib
from difflib import get_close_matches

import yaml

from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.project import current_project
from ml_platform.yaml_documents import LOADER

ATTRIBUTE = "RAW_TABLES"
COMPONENT = "SourceTable"


def declared_tables() -> dict[str, RawTable]:
    """Collect `RAW_TABLES` of every `defs/<folder>/tables.py`, and every `SourceTable` of a `defs.yaml`."""
    project = current_project()
    tables: dict[str, RawTable] = {}
    for path in sorted(project.defs.glob("*/tables.py")):
        module = importlib.import_module(f"{project.package}.defs.{path.parent.name}.tables")
        tables |= {raw.name: raw for raw in getattr(module, ATTRIBUTE, ())}
    return tables | {name: raw_table(spec) for name, spec in declared_sources().items()}


def declared_sources() -> dict[str, SourceSpec]:
    """Read every `SourceTable` of a `defs.yaml`, by the name of its table."""
    sources: dict[str, SourceSpec] = {}
    for path in sorted(current_project().defs.rglob("defs.yaml")):
        for document in yaml.load_all(path.read_text(encoding="utf-8"), Loader=LOADER):
            if isinstance(document, dict) and str(document.get("type", "")).rpartition(".")[2] == COMPONENT:
                spec = SourceSpec.model_validate(document.get("attributes") or {})
                sources[spec.name] = spec
    return sources


def declared_table(name: str) -> RawTable:
    """Find one raw table.

    Raises
    ------
    LookupError
        If no table of that name is declared, naming those that are.
    """
    tables = declared_tables()
    if name in tables:
        return tables[name]
    near = get_close_matches(name, tables, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise LookupError(
        f"No raw table '{name}' is declared below {current_project().defs}; there are: {', '.join(tables)}.{hint}"
    )
