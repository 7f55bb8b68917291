"""`ml-platform sql "SELECT …"`: query the lake in the terminal."""

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.lake.access import AccessDenied
from ml_platform.printable import plain
from ml_platform.settings import Settings
from ml_platform.terminal import say, show, stop

if TYPE_CHECKING:
    import polars as pl

    from ml_platform.lake.query.overlays import Overlays
    from ml_platform.lake.query.sql_functions import SqlFunctions
    from ml_platform.lake.storage.tables import Lake


class Format(StrEnum):
    """How a result is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def sql_command(
    overlays_of: "Callable[[Lake], Overlays]",
    functions: "Callable[[Lake], SqlFunctions]",
    access_statement: Callable[[str], list[str] | None],
) -> Callable[..., None]:
    """Make the command.

    Parameters
    ----------
    overlays_of, functions
        Make the overlays for a lake, and SQL's functions for whom it is bound to.
    access_statement
        Carries out GRANT, REVOKE and DENY and tells what happened; gives None for any other SQL.
    """

    def sql(
        query: Annotated[
            str,
            typer.Argument(
                help="A SELECT over tables named schema.name, or GRANT, REVOKE, DENY; - reads standard input."
            ),
        ],
        as_of: Annotated[
            str | None, typer.Option(help="Read the tables as they were then: 2024-06-01 or 2024-06-01T12:00Z.")
        ] = None,
        version: Annotated[
            list[str] | None, typer.Option(help="Read a table at a version: raw/flights=3. May be repeated.")
        ] = None,
        format: Annotated[Format, typer.Option(help="How the result is written.")] = Format.TABLE,
        limit: Annotated[int, typer.Option(min=0, help="Most rows to show; 0 for all.")] = 100,
    ) -> None:
        """Query the lake in DuckDB's SQL.

        Example: ml-platform sql "SELECT origin, count(*) FROM raw.flights GROUP BY 1" --as-of 2024-06-01
        """
        import duckdb
        import polars as pl

        from ml_platform.lake.bound import bound_lake
        from ml_platform.lake.query.sql import query as run
        from ml_platform.lake.storage.snapshots import instant

        statement = sys.stdin.read() if query == "-" else query
        try:
            if (done := access_statement(statement)) is not None:
                for line in done:
                    say(line)
                return
        except (LookupError, ValueError, PermissionError) as error:
            stop(str(error))
        try:
            lake = bound_lake(Settings(), "sql")
            rows = run(
                lake,
                statement,
                versions=parse_versions(version or ()),
                as_of=instant(as_of) if as_of else None,
                limit=limit + 1 if limit else None,
                overlays=overlays_of(lake),
                functions=functions(lake),
            )
        except duckdb.CatalogException as error:
            names = ", ".join(_sql_name(table) for table in lake.tables())
            stop(f"{error}\nTables: {names or 'none yet; materialise a raw table first'}")
        except duckdb.PermissionException as error:
            stop(f"{error}\nSQL reads only the lake's tables: make the file one (SourceTable), or read it with Polars.")
        except pl.exceptions.ComputeError as error:
            stop(f"{error}\nA column is of a type that no result can have, like INTERVAL: cast it.")
        except (duckdb.Error, LookupError, ValueError, ConnectionError, AccessDenied) as error:
            stop(str(error))
        shown = rows.head(limit) if limit else rows
        write(render(shown, format), format)
        if shown.height < rows.height:
            say(f"The first {limit} rows; there are more. --limit 0 shows all.", err=True)

    return sql


def parse_versions(pairs: Sequence[str]) -> dict[str, int]:
    """Read `table=version` pairs; the table as `raw/flights` or `raw.flights`.

    Raises
    ------
    ValueError
        If one is not of that form.

    Examples
    --------
    >>> parse_versions(["raw/flights=3", "raw.planes=0"])
    {'raw/flights': 3, 'raw/planes': 0}
    """
    versions = {}
    for pair in pairs:
        table, _, number = pair.rpartition("=")
        if not table or not number.isdigit():
            raise ValueError(f"--version wants table=number, like raw/flights=3; got '{pair}'.")
        versions[table if "/" in table else table.replace(".", "/", 1)] = int(number)
    return versions


def render(rows: "pl.DataFrame", format: Format) -> str:
    """Write rows as a table for people, as CSV with a header, or as a JSON array of objects.

    Only the table is made safe for a terminal: CSV and JSON are the data as it is.
    """
    import polars as pl

    if format is Format.JSON:
        return rows.write_json()
    if format is Format.CSV:
        nested = [name for name, dtype in rows.schema.items() if dtype.is_nested()]
        # CSV has no lists: such a cell holds JSON.
        return (
            rows.with_columns(pl.col(name).map_elements(_json, pl.String) for name in nested)
            .write_csv()
            .removesuffix("\n")
        )
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=-1,
        fmt_str_lengths=80,
        fmt_table_cell_list_len=-1,
        tbl_formatting="UTF8_FULL_CONDENSED",
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_cell_numeric_alignment="RIGHT",
    ):
        return f"{_shown(rows)}\n{rows.height} row{'' if rows.height == 1 else 's'}"


def write(text: str, format: Format) -> None:
    """Print rendered rows; data for another program as it is, unless a terminal would obey it."""
    if format is Format.TABLE or sys.stdout.isatty():
        show(text)
    else:
        typer.echo(text)


def _shown(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Give each cell with texts in it, and each name, as one line that a terminal only shows."""
    import polars as pl

    def shown(name: str, dtype: pl.DataType) -> pl.Expr:
        text = pl.col(name).map_elements(_json, pl.String) if dtype.is_nested() else pl.col(name).cast(pl.String)
        return text.map_elements(plain, pl.String).alias(name)

    texts = [
        name
        for name, dtype in rows.schema.items()
        if dtype.is_nested() or dtype in (pl.String, pl.Categorical, pl.Enum)
    ]
    safe = rows.with_columns(shown(name, rows.schema[name]) for name in texts)
    return safe.rename({name: plain(name) for name in rows.columns})


def _json(value: object) -> str:
    import json

    import polars as pl

    return json.dumps(value.to_list() if isinstance(value, pl.Series) else value, default=str, ensure_ascii=False)


def _sql_name(table: str) -> str:
    schema, _, name = table.partition("/")
    return f'{schema}."{name}"' if "/" in name else f"{schema}.{name}"
