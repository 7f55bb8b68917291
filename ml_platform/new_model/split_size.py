"""How long the parts of the time-ordered split are, so that each has rows enough."""

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.new_model.row_identity import FIRST_DAY, SPREAD_DAYS
from ml_platform.spec.model import Split
from ml_platform.spec.promotion import Promotion
from ml_platform.spec.types import duration

_WANTED_ROWS = 250  # of the holdout: some more than the gate wants
_WANTED_RARE = math.ceil(1.25 * Promotion().min_class_rows)  # of them, of other classes than the most frequent
_SHARES = (0.2, 0.4)  # of the rows that the holdout has, at least and at most
_VALIDATION_SHARE = 0.15
_LONG = timedelta(days=120)  # tables of at least this span get the usual split
_ENDED = timedelta(days=45)  # without a row for this long, a table is not one that grows


@dataclass(frozen=True)
class DraftSplit:
    """Parts, what the gate has to know of them, and the days that can be scored.

    Attributes
    ----------
    split, promotion
        What `split` and `promotion` in `defs.yaml` have; empty where the usual does.
    first_day, last_day
        Of batch scoring; no last day where the table seems to grow.
    notes
        What the model's owner should know, in sentences.
    """

    split: dict[str, str]
    promotion: dict[str, Any]
    first_day: date
    last_day: date | None
    notes: tuple[str, ...] = ()


def size_split(instants: pl.Series, *, is_drawn: bool, today: date, rare: pl.Series | None = None) -> DraftSplit:
    """Size the split of labelled rows.

    Parameters
    ----------
    instants
        Of the labelled rows, UTC.
    is_drawn
        Whether the instants mean nothing, because they are drawn from ids.
    today
        To tell a table that grows from one that has ended.
    rare
        Those of the instants whose rows are of another class than the most frequent; None without classes.

    Examples
    --------
    >>> hours = pl.datetime_range(datetime(2024, 1, 1), datetime(2024, 1, 21), "1h", time_zone="UTC", eager=True)
    >>> size_split(hours, is_drawn=False, today=date(2024, 1, 22)).split
    {'holdout': '8 days', 'validation': '4 days', 'gap': '0 days'}
    """
    first, last = instants.min(), instants.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        raise ValueError(f"wanted instants to split rows by, found {instants.dtype}")
    if is_drawn:
        return _drawn(len(instants), None if rare is None else len(rare))
    last_day = last.date() if today - last.date() > _ENDED else None
    usual, span = Split(), last - first
    rows = int((instants > last - usual.holdout).sum())
    has_classes = rare is None or int((rare > last - usual.holdout).sum()) >= _WANTED_RARE
    if span >= _LONG and has_classes and _WANTED_ROWS <= rows <= _SHARES[1] * len(instants):
        return DraftSplit({}, {}, first.date(), last_day)
    with_rare = 0.0
    if rare is not None and len(rare):
        with_rare = (instants >= rare.sort(descending=True)[:_WANTED_RARE][-1]).sum() / len(instants)
    share = _share(len(instants), with_rare)
    newest_train = instants.sort()[int((1 - share) * (len(instants) - 1))]
    holdout = _rounded(max(last - newest_train, share * span / 2))
    validation = _rounded(max(_VALIDATION_SHARE * span, holdout / 2))
    gap = timedelta(days=1) if span >= 30 * timedelta(days=1) else timedelta(0)
    split = {"holdout": duration(holdout), "validation": duration(validation), "gap": _gap(gap)}
    in_holdout = instants.filter(instants > last - holdout)
    promotion = _few_rows(len(in_holdout))
    if in_holdout.dt.date().n_unique() < Promotion().min_blocks:
        promotion["block"] = "rows"
    of_rare = None if rare is None else (len(rare), int((rare > last - holdout).sum()))
    return DraftSplit(split, promotion, first.date(), last_day, _notes(promotion, of_rare))


def _share(rows: int, with_rare: float) -> float:
    """Share of the rows that the holdout has, given that with which it has enough of the rarer classes."""
    return min(max(_SHARES[0], _WANTED_ROWS / rows, with_rare), _SHARES[1])


def _drawn(rows: int, rare: int | None) -> DraftSplit:
    """Instants spread evenly over `SPREAD_DAYS` days: shares of the rows are shares of the days."""
    share = _share(rows, _WANTED_RARE / rare if rare else 0.0)
    holdout = math.ceil(share * SPREAD_DAYS)
    split = {
        "holdout": f"{holdout} days",
        "validation": f"{math.ceil(_VALIDATION_SHARE * SPREAD_DAYS)} days",
        "gap": "0 days",
    }
    promotion = {"block": "rows", **_few_rows(round(rows * holdout / SPREAD_DAYS))}
    last = FIRST_DAY + timedelta(days=SPREAD_DAYS - 1)
    of_rare = None if rare is None else (rare, round(rare * holdout / SPREAD_DAYS))
    return DraftSplit(split, promotion, FIRST_DAY, last, _notes(promotion, of_rare))


def _few_rows(holdout: int) -> dict[str, Any]:
    """What lets the gate judge a small table: its interval says what so few rows can tell."""
    least = Promotion().min_rows
    return {"min_rows": max(math.floor(0.8 * holdout), 2)} if 0.9 * holdout < least else {}


def _notes(promotion: dict[str, Any], rare: tuple[int, int] | None) -> tuple[str, ...]:
    """Sentences; `rare` is how many rows of other classes than the most frequent table and holdout have."""
    wanted = Promotion().min_class_rows
    notes = []
    if rare is not None and rare[1] < wanted <= rare[0]:  # of fewer in the table, `target` tells
        notes.append(
            f"The holdout has about {rare[1]} rows of another class than the most frequent, the gate wants {wanted} "
            "(promotion.min_class_rows), so it will release nothing. Gather more rows, or lengthen split.holdout."
        )
    if "min_rows" not in promotion:
        return tuple(notes)
    return (
        *notes,
        f"The table is small: the gate judges on {promotion['min_rows']} rows or more, where it usually wants "
        f"{Promotion().min_rows}. Its interval is as wide as so few rows are; more rows make it narrower.",
    )


def _rounded(span: timedelta) -> timedelta:
    """Round up to whole days, of short spans to hours, of the shortest to minutes."""
    unit = next(
        (
            unit
            for unit in (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))
            if span >= 2 * unit
        ),
        timedelta(seconds=1),
    )
    return math.ceil(span / unit) * unit


def _gap(gap: timedelta) -> str:
    return duration(gap) if gap else "0 days"
