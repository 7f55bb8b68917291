"""Converts values to a contract's types. How a value is read depends on its column only, never on other rows.

Text is read; of a value that has a type already, only an equal one is taken (`ml_platform.lake.exact_casts`). A number
that is written with more digits than the contract's type has is not read: 12.349 is no Decimal(10, 2), and a double has
no 9007199254740993. Fractions are read as the nearest double, as JSON does.

Timestamps and dates are in ISO 8601 and numbers are plain, unless the column's metadata say otherwise: `format` is how
values are written (such as `%d.%m.%Y %H:%M` for dates and timestamps, or an example of `NUMBERS`, with the minus in
front or behind), and `time_zone` is that of timestamps without an offset (UTC when absent).
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ml_platform.boolean_texts import BOOLEANS
from ml_platform.lake.exact_casts import exact_cast, is_castable

NUMBERS = {  # an example → separator of thousands, and decimal point
    "1,234.5": (",", "."),
    "1.234,5": (".", ","),
    "1 234,5": (" \u00a0\u202f", ","),  # also non-breaking spaces
    "1'234.5": ("'", "."),
}
_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
_TIME = r"[T ]\d{1,2}:\d{1,2}(?::\d{1,2}(?:\.\d{1,6}0*)?)?"
_OFFSET = r"(?:Z| ?UTC|[+-]\d\d(?::?\d\d)?)"
WITH_OFFSET = f"^{_DAY}{_TIME}{_OFFSET}$"  # an instant, whatever the time zone


def is_reachable(found: pl.DataType, wanted: pl.DataType, metadata: Mapping[str, Any]) -> bool:
    """Whether values of one type can be converted to another; text can always be tried, row by row."""
    if found == wanted or found in (pl.String, pl.Null):
        return True
    if isinstance(wanted, pl.Datetime) and wanted.time_zone is not None:
        if isinstance(found, pl.Datetime) and found.time_zone is None:
            return "time_zone" in metadata
        return found == pl.Date or isinstance(found, pl.Datetime)
    return is_castable(found, wanted)


def typed(name: str, found: pl.DataType, wanted: pl.DataType, metadata: Mapping[str, Any]) -> pl.Expr:
    """Convert a column; null where a value cannot be converted.

    Examples
    --------
    >>> rows = pl.DataFrame({"at": ["2024-03-31 01:30", "2024-03-31 02:30", "2024-03-31 02:30+01:00", "31.3.2024"]})
    >>> when = typed("at", pl.String(), pl.Datetime("us", "UTC"), {"time_zone": "Europe/Berlin"})
    >>> rows.select(when.dt.to_string("%H:%M"))["at"].to_list()  # clocks were put forward from 2 to 3
    ['00:30', None, '01:30', None]
    """
    column = pl.col(name)
    if found == pl.String != wanted:
        return _read(column.str.strip_chars(), wanted, metadata)
    is_local = found == pl.Date or (isinstance(found, pl.Datetime) and found.time_zone is None)
    if is_local and isinstance(wanted, pl.Datetime):
        return _placed(exact_cast(column, found, pl.Datetime(wanted.time_unit)), wanted, metadata)
    return exact_cast(column, found, wanted)


def _read(text: pl.Expr, wanted: pl.DataType, metadata: Mapping[str, Any]) -> pl.Expr:
    form = metadata.get("format")
    if isinstance(wanted, pl.Datetime):
        return _timestamp(text, wanted, metadata)
    if wanted == pl.Date and form is None:
        return pl.when(text.str.contains(f"^{_DAY}$")).then(text).str.to_date("%Y-%m-%d", strict=False)
    if wanted == pl.Date and form is not None:
        return _in_full(text.str.to_date(form, strict=False), form)
    if wanted == pl.Boolean:
        return text.str.to_lowercase().replace_strict(BOOLEANS, default=None)
    if form is not None:
        text = _plain_number(text, *NUMBERS[form])
    return _number(text, wanted) if wanted.is_numeric() else text.cast(wanted, strict=False)


def _number(text: pl.Expr, wanted: pl.DataType) -> pl.Expr:
    """Read a plain number; null where the type has no such number."""
    if wanted.is_integer():  # "12.0" is how pandas writes integers with missing values
        return text.str.extract(r"^([+-]?[0-9]+)(?:\.0*)?$").cast(wanted, strict=False)
    read = text.cast(wanted, strict=False)
    if isinstance(wanted, pl.Decimal):
        return pl.when(text.str.contains(rf"^[+-]?[0-9]*(?:\.[0-9]{{0,{wanted.scale}}}0*)?$")).then(read)
    digits = text.str.extract(r"^([+-]?[0-9]+)(?:\.0*)?$")
    # Whole numbers are often ids, of which no digit may change. JavaScript ends large ones in zeros.
    whole = pl.Decimal(38, 0)
    same = digits.cast(pl.Int128, strict=False) == read.cast(pl.Int128, strict=False)
    shortest = digits.cast(whole, strict=False) == read.cast(pl.String).cast(whole, strict=False)
    is_whole = digits.str.len_bytes() > (7 if wanted == pl.Float32 else 15)
    is_read = pl.when(is_whole).then(same | shortest).otherwise(read.is_finite() | text.str.contains("(?i)inf|nan"))
    return pl.when(is_read).then(read)


def _plain_number(text: pl.Expr, group: str, point: str) -> pl.Expr:
    text = text.str.replace(r"^(\d.*)-$", "-$1")  # as SAP writes it
    shape = rf"^[+-]?(\d+|\d{{1,3}}([{group}]\d{{3}})+)([{point}]\d+)?$"
    plain = text.str.replace_all(f"[{group}]", "").str.replace(point, ".", literal=True)
    return pl.when(text.str.contains(shape)).then(plain)


def _timestamp(text: pl.Expr, wanted: pl.Datetime, metadata: Mapping[str, Any]) -> pl.Expr:
    unit, zone = wanted.time_unit, wanted.time_zone
    if (form := metadata.get("format")) is not None:
        if zone is not None and "%z" in form:
            return _in_full(text.str.to_datetime(form, time_unit=unit, time_zone=zone, strict=False), form)
        return _placed(_in_full(text.str.to_datetime(form, time_unit=unit, strict=False), form), wanted, metadata)
    # Polars infers the format from the values it gets, so it gets only ISO 8601, with and without offset separately.
    local = pl.when(text.str.contains(f"^{_DAY}(?:{_TIME})?$")).then(text)
    placed = _placed(local.str.to_datetime(time_unit=unit, strict=False), wanted, metadata)
    if zone is None:
        return placed
    absolute = pl.when(text.str.contains(WITH_OFFSET)).then(text.str.replace(" ?UTC$", "Z"))
    return pl.coalesce(placed, absolute.str.to_datetime(time_unit=unit, time_zone=zone, strict=False))


def _in_full(read: pl.Expr, form: str) -> pl.Expr:
    """Null where the year has fewer than the four digits of `%Y`: 24 does not mean the year 24."""
    return pl.when(read.dt.year() >= 1000).then(read) if "%Y" in form else read


def _placed(naive: pl.Expr, wanted: pl.Datetime, metadata: Mapping[str, Any]) -> pl.Expr:
    """Give local times their zone; null for times that the clocks skipped or showed twice."""
    if wanted.time_zone is None:
        return naive
    zone = metadata.get("time_zone", "UTC")
    return naive.dt.replace_time_zone(zone, ambiguous="null", non_existent="null").dt.convert_time_zone(
        wanted.time_zone
    )
