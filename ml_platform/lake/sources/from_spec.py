"""Makes a `RawTable` of a `SourceSpec`, so that every kind of source has contract, quarantine and reports."""

from datetime import date

import polars as pl

from ml_platform.lake.errors import EmptyInput
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.sources.source_spec import SourceSpec, resolve


def raw_table(spec: SourceSpec) -> RawTable:
    """Build the raw table that a spec declares; its `read` reads the whole source, and refuses an empty file."""

    def read(_start: date | None, _end: date | None) -> pl.DataFrame:
        # Here, so that definitions load without the readers.
        from ml_platform.lake.sources.file_readers import read_source_file
        from ml_platform.lake.sources.incremental_folder import read_folder
        from ml_platform.lake.sources.sql_database import read_query

        if spec.file is None:
            return read_folder(spec) if spec.folder is not None else read_query(spec)
        rows = read_source_file(spec, resolve(spec.file.path))
        if rows.is_empty():  # more often a failed export than the truth
            raise EmptyInput(
                f"{spec.file.path} has no rows, which would empty '{spec.name}'. Have it written again; to empty the "
                "table on purpose, use Lake.replace."
            )
        return rows

    return RawTable(
        name=spec.name,
        description=spec.description,
        source=source_of(spec),
        contract=spec.schema_class(),
        read=read,
        evolution=spec.evolution,
        partition_by=spec.partition_by,
        owner=spec.owner,
        protection=spec.protection,
    )


def source_of(spec: SourceSpec) -> str:
    """Describe where the rows come from."""
    if spec.file is not None:
        return spec.file.path
    if spec.folder is not None:
        return f"{spec.folder.path}/{spec.folder.pattern}"
    return f"the PostgreSQL database ${spec.sql.url_variable}" if spec.sql else "nowhere"
