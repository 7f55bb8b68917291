"""Says of guessed columns what somebody should look at: what only looks like a type, and what could be declared."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from ml_platform.lake.sources.contract_inference import writes_number
from ml_platform.lake.sources.dialect_inference import counts_rows

_INDEX = {"", "x", "index", "unnamed: 0", "rownames", "row_name", "row_names", "rowname"}
_NUMBER = r"[+-]?\d[\d.,' \u00a0\u202f]*"
_LIKE: tuple[tuple[str, str], ...] = (  # a pattern of all texts, and what to say
    (
        r"\d{1,2}([./-])\d{1,2}[./-]\d\d",
        'dates with years of two digits: say type: date, format: "%d.%m.%y" (as it is)',
    ),
    (
        r"\d{1,2}([./-])\d{1,2}[./-]\d\d[ T].*",
        'timestamps with years of two digits: say type: timestamp, format: "%d.%m.%y %H:%M" (as it is)',
    ),
    (
        r"\d{1,2}[./-]\d{1,2}[./-]\d{4}([ T].*)?",
        'dates, of which day and month are not clear, or with a time: say type: date, format: "%d/%m/%Y" (or %m/%d/%Y, '
        "%I:%M:%S %p and the like)",
    ),
    (r"\d{1,2}[ -]?[A-Za-z]{3,9}[-, ]+\d{2,4}.*", 'dates: say type: date, format: "%d-%b-%Y" (or %d %B %Y)'),
    (rf"\s*{_NUMBER}\s*%", "shares in %, which no type reads: make numbers of them where they are written"),
    (
        rf"\s*([$€£¥₹]|[A-Z]{{3}})?\s*{_NUMBER}\s*([$€£¥₹]|[A-Z]{{3}})?\s*",
        "numbers with blanks or a currency, or that could be read in two ways (1,250): say type: number and format:, "
        "and have currencies left out where they are written",
    ),
    (
        rf"\s*\(?{_NUMBER}\s*[-)]?\s*",
        "numbers with the minus behind them, which a format takes (type: number, format: "
        '"1.234,5" or "1,234.5"), or in parentheses: have it written in front',
    ),
    (r"(?i)yes|no|y|n|t|f|on|off|ja|nein|oui|non|si|sí", "yes or no: a boolean is true, false, 1 or 0"),
)
_FEW_OTHERS = 5


def notes_of(rows: pl.DataFrame, columns: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say what should be looked at in columns as `columns_of` guessed them; columns that are alike in one sentence."""
    alike: dict[str, list[str]] = {}
    examples: dict[str, str] = {}
    for name, column in columns.items():
        values = rows.get_column(name).drop_nulls()
        if column["type"] == "integer" and name.lower() in _INDEX and counts_rows(rows.get_column(name)):
            yield (
                f"Column {name} counts the rows, as R and pandas write them: if it means nothing else, remove it and "
                "say unlisted: drop."
            )
        elif column["type"] == "string" and values.dtype == pl.String and len(values):
            texts = values.unique(maintain_order=True)
            if (what := _resemblance(texts)) is not None:
                odd = texts.filter([not writes_number(text) for text in texts])  # what speaks against a number
                alike.setdefault(what, []).append(name)
                examples.setdefault(what, _some(odd if len(odd) else texts))
    for what, names in alike.items():
        are = f"Column {names[0]} is a string, and looks" if len(names) == 1 else f"Columns {few(names)} look"
        yield f"{are} like {what}. Found: {examples[what]}"


def few(names: Sequence[str]) -> str:
    """List a few names, and count the rest.

    Examples
    --------
    >>> few(["a", "b"]), few([f"x{number}" for number in range(200)])
    ('a, b', 'x0, x1, x2, x3, x4 and 195 more')
    """
    listed = ", ".join(names[:_FEW_OTHERS])
    return listed if len(names) <= _FEW_OTHERS else f"{listed} and {len(names) - _FEW_OTHERS} more"


def _resemblance(texts: pl.Series) -> str | None:
    """What texts look like, if they all do, or if all but a few do."""
    for pattern, what in _LIKE if len(texts) > 1 else _LIKE[:-1]:
        if texts.str.contains(rf"^({pattern})$").all():
            return what if texts.str.contains(r"[^\d]").any() else None  # digits alone are ids
    others = texts.filter(~texts.str.contains(rf"^\s*({_NUMBER}|[12]\d{{3}}-\d\d-\d\d.*)\s*$"))
    if 0 < len(others) <= min(_FEW_OTHERS, (len(texts) - 1) / 2):
        return f"numbers or dates but for {_some(others)}: say null_values: if these mean a missing value"
    return None


def _some(texts: pl.Series) -> str:
    shown = ", ".join(repr(text) for text in texts.head(3))
    return re.sub(r"\s+", " ", shown)[:120]
