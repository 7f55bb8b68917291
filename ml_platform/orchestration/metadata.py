"""What an asset shows of itself in the Dagster UI: tables, plots, column schemas, in the forms the UI renders."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import polars as pl

    from ml_platform.lake.storage.tables import Lake
    from ml_platform.segment_log.ingest import Ingested

_MOST_REASONS = 6  # the UI hides longer Markdown behind a click


def plot(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """Embed a PNG, so that the picture travels with the materialisation and needs no file server."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def plots(images: Mapping[str, bytes]) -> dict[str, dg.MarkdownMetadataValue]:
    """Embed several PNGs, by name or file name, under `plot/<name>`."""
    return {f"plot/{(stem := name.removesuffix('.png'))}": plot(png, stem) for name, png in images.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue:
    """Show rows as a table: numbers to four digits, what Dagster's table cannot hold written out."""
    if not rows:
        return dg.MetadataValue.text("none")
    plain = [{key: _cell(value) for key, value in row.items()} for row in rows]
    columns = [dg.TableColumn(name=name, type=_kind(row.get(name) for row in plain)) for name in plain[0]]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in plain], schema=dg.TableSchema(columns=columns))


def _cell(value: Any) -> str | int | float | bool:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value if isinstance(value, str | int | bool) else ("" if value is None else str(value))


def reasons(lines: Sequence[str]) -> dg.MetadataValue:
    """Show the first reasons as a list."""
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in _first(lines)))


def in_short(lines: Sequence[str]) -> str:
    """Tell the first reasons in one line."""
    return "; ".join(line.removesuffix(".") for line in _first(lines))


def _first(lines: Sequence[str]) -> list[str]:
    rest = [f"… and {len(lines) - _MOST_REASONS} more"] if len(lines) > _MOST_REASONS else []
    return [*lines[:_MOST_REASONS], *rest]


def _kind(values: Iterable[Any]) -> str:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "bool"
    return {frozenset({int}): "int", frozenset({float}): "float"}.get(frozenset(kinds), "string")


def column_schema(
    schema: "pl.Schema", described: Mapping[str, tuple[str, str | None]] | None = None
) -> dg.TableSchemaMetadataValue:
    """Show a table's columns with types, and description and unit where they are known.

    Parameters
    ----------
    schema
        The table's Polars schema.
    described
        Column → (description, unit).
    """
    columns = []
    for name, dtype in schema.items():
        description, unit = (described or {}).get(name, ("", None))
        columns.append(
            dg.TableColumn(
                name=name, type=str(dtype), description=f"{description} [{unit}]".strip() if unit else description
            )
        )
    return dg.MetadataValue.table_schema(dg.TableSchema(columns=columns))


def sample(frame: "pl.DataFrame", rows: int = 5) -> dg.MarkdownMetadataValue:
    """Show the first rows as a Markdown table."""
    import polars as pl

    with pl.Config(
        tbl_formatting="ASCII_MARKDOWN",
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_cols=-1,
        tbl_width_chars=-1,
        fmt_str_lengths=40,
    ):
        return dg.MetadataValue.md(str(frame.head(rows)))


def versions(tables: Mapping[str, int]) -> dg.MetadataValue:
    """Show which version of each lake table was read."""
    return table([{"table": name, "version": version} for name, version in sorted(tables.items())])


def ingested(
    lake: "Lake", report: "Ingested", written_at: str, described: Mapping[str, tuple[str, str | None]] | None = None
) -> dict[str, dg.MetadataValue | int | str]:
    """Show what was moved from log segments into a table, of which `written_at` says when a row was logged.

    `described` is that of `column_schema`.
    """
    import polars as pl

    facts: dict[str, dg.MetadataValue | int | str] = {
        "new rows": report.rows,
        "log segments read": report.segments,
        "unfinished lines": report.torn,
        "newest": str(report.newest or "none"),
    }
    if report.version is not None:
        rows = lake.read(report.table, version=report.version)
        facts |= {
            "dagster/row_count": rows.select(pl.len()).collect().item(),
            "dagster/column_schema": column_schema(rows.collect_schema(), described),
            "delta version": report.version,
            "sample": sample(rows.sort(written_at).tail(5).collect()),
        }
    return facts


def numbers(values: Mapping[str, float | None], prefix: str = "") -> dict[str, float]:
    """Pass finite numbers on, one metadata entry each: the UI draws their history by itself."""
    return {
        f"{prefix}{name}": float(value)
        for name, value in values.items()
        if value is not None and abs(float(value)) != float("inf") and float(value) == float(value)
    }
