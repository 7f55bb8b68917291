"""The one rule for casts: a value takes another type only if casting it back gives the same value.

Ingest quarantines a row with any other value, `Lake.append` refuses the frame, and a training set, a view and a request
are refused, each with the value. What no cast back can decide is settled here:

- Numbers are the same value where the quantity is: 3.0 is the integer 3, 3.7 is none. A whole number beyond 2^53 that a
  double does not have is refused, also where it is written as text. 1 and 0 are true and false, but not the reverse:
  databases and languages without booleans write them so.
- Text for an integer is its digits, as a request sends them. Other numbers have more than one spelling (12345.0, 12345;
  0.1, .10, 1e-1), as have instants: the source or query must write the text itself.
- An instant keeps its microseconds and its place on the time line; a local time has no place without a time zone.
- Dates and instants are of the years 1 to 9999. DuckDB's `infinity` is not one of them.
"""

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

_DAYS = (-719_162, 2_932_896)  # 0001-01-01 and 9999-12-31, in days since 1970
_TICKS = {"ms": 1_000, "us": 1_000_000}  # in a second; nanoseconds of 64 bits do not reach beyond these years


def is_castable(found: "PolarsDataType", wanted: "PolarsDataType") -> bool:
    """Whether `exact_cast` can be asked for: types of one kind, integers and days as text, 0 and 1 as booleans."""
    if is_same_kind(found, wanted) or is_flag(found, wanted):
        return True
    return wanted == pl.String and (found.is_integer() or found == pl.Date)


def is_flag(found: "PolarsDataType", wanted: "PolarsDataType") -> bool:
    """Whether numbers are to be booleans, which 1 and 0 are."""
    return wanted == pl.Boolean and found.is_numeric()


def is_same_kind(found: "PolarsDataType", wanted: "PolarsDataType") -> bool:
    """Whether two types differ at most in width, precision, unit or encoding, also where they are nested."""
    if found in {wanted, pl.Null}:
        return True
    if isinstance(found, pl.List | pl.Array) and isinstance(wanted, pl.List | pl.Array):
        widths = {dtype.shape for dtype in (found, wanted) if isinstance(dtype, pl.Array)}
        return len(widths) < 2 and is_same_kind(found.inner, wanted.inner)
    if isinstance(found, pl.Struct) and isinstance(wanted, pl.Struct):
        names = [[field.name for field in dtype.fields] for dtype in (found, wanted)]
        pairs = zip(found.fields, wanted.fields, strict=False)
        return names[0] == names[1] and all(is_same_kind(one.dtype, other.dtype) for one, other in pairs)
    if found.is_numeric() or is_text(found):
        return wanted.is_numeric() if found.is_numeric() else is_text(wanted)
    return _is_instant(found) and _is_instant(wanted) and _has_zone(found) == _has_zone(wanted)


def exact_cast(column: pl.Expr, found: "PolarsDataType", wanted: "PolarsDataType") -> pl.Expr:
    """Cast a column; null where the wanted type does not have the value.

    Parameters
    ----------
    column
        Values of the type `found`, for which `is_castable(found, wanted)`.

    Examples
    --------
    >>> prices = pl.DataFrame({"n": [3.0, 3.7, None]})
    >>> prices.select(exact_cast(pl.col("n"), pl.Float64(), pl.Int64()))["n"].to_list()
    [3, None, None]
    """
    bounds = _calendar(wanted)
    if found == pl.Null:
        return column.cast(wanted)
    if wanted == pl.String and not is_text(found):
        bounds, cast = _calendar(found), column.cast(pl.String)  # one spelling each, which Polars does not read back
    elif found != wanted:
        if found.is_float() and isinstance(wanted, pl.Decimal):  # Polars raises where a decimal would be too long
            column = pl.when(column.abs() < 10 ** (wanted.precision - wanted.scale)).then(column)
        cast = column.cast(wanted, strict=False)
        lacks_cast = wanted == pl.Boolean and isinstance(found, pl.Decimal)  # in Polars
        back = (cast.cast(pl.Int64) if lacks_cast else cast).cast(found, strict=False)
        cast = pl.when(back.eq_missing(column)).then(cast)  # so are NaN and NaN, 0.0 and -0.0
    else:
        cast = column
    if bounds is None:
        return cast
    physical = (column if wanted == pl.String else cast).to_physical()
    return pl.when(physical.is_between(*bounds)).then(cast)


def cast_exactly(values: pl.Series, wanted: "PolarsDataType") -> pl.Series:
    """Do what `exact_cast` does for a series (raises TypeError if the types have no values in common)."""
    if not is_castable(values.dtype, wanted):
        raise TypeError(f"no value of {values.dtype} is one of {wanted}")
    frame = pl.DataFrame({"": values})
    return frame.select(exact_cast(pl.col(""), values.dtype, wanted)).to_series().alias(values.name)


def first_lost(values: pl.Series, cast: pl.Series) -> int | None:
    """Position of the first value that has none of the cast's type; None when every value has one."""
    return next(iter((values.is_not_null() & cast.is_null()).arg_true().head(1)), None)


def shown(values: pl.Series, position: int) -> str:
    """Show a value in a message, also an instant that neither Python nor Polars can write."""
    bounds, one = _calendar(values.dtype), values.slice(position, 1)
    if bounds is not None and not one.to_physical().is_between(*bounds).all():
        ends = {2**63 - 1: "infinity", -(2**63) + 1: "-infinity", 2**31 - 1: "infinity", -(2**31) + 1: "-infinity"}
        ticks = one.to_physical()[0]
        return ends.get(ticks, f"{ticks} ticks from 1970") + " (outside of the years 1 to 9999)"
    if _has_zone(values.dtype):  # in another zone the first and last hours have no date
        one = one.dt.convert_time_zone("UTC")
    return repr(one[0]) if not values.dtype.is_temporal() and not values.dtype.is_decimal() else str(one[0])


def is_text(dtype: "PolarsDataType") -> bool:
    """Whether a type is text, or a code for text."""
    return dtype.base_type() in {pl.String, pl.Categorical, pl.Enum}


def _is_instant(dtype: "PolarsDataType") -> bool:
    return dtype.base_type() in {pl.Date, pl.Datetime}


def _has_zone(dtype: "PolarsDataType") -> bool:
    return isinstance(dtype, pl.Datetime) and dtype.time_zone is not None


def _calendar(dtype: "PolarsDataType") -> tuple[int, int] | None:
    """First and last physical value of the years 1 to 9999; None for types without a bound."""
    if dtype == pl.Date:
        return _DAYS
    if isinstance(dtype, pl.Datetime) and dtype.time_unit in _TICKS:
        ticks = 86_400 * _TICKS[dtype.time_unit]
        return _DAYS[0] * ticks, (_DAYS[1] + 1) * ticks - 1
    return None
