"""Evidently's page of a comparison: each column of both sides drawn, under the verdict that was reached without it.

A column that cannot be drawn is left out and named; the page and the verdict stand.
"""

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ml_platform.monitoring.drift.comparison import ColumnDrift

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

MAX_ROWS = 5_000  # drawn of each side
_CATEGORIES = 30  # bars; the rest are one
_OTHER = "(other)"
_EDGE = 0.005  # of the values beyond are drawn at the edge
_STEPS = 10_000  # between the edges
_log = logging.getLogger(__name__)
_judged: ContextVar[Mapping[str, ColumnDrift]] = ContextVar("judged")


def draw_columns(
    reference: pl.DataFrame, current: pl.DataFrame, columns: Sequence[ColumnDrift]
) -> tuple["Snapshot | None", dict[str, str]]:
    """Draw the judged columns with Evidently.

    Returns
    -------
    tuple
        Evidently's snapshot, None where no column can be drawn; and column → why it is not drawn.
    """
    undrawn: dict[str, str] = {}
    sides: dict[str, tuple[pl.Series, pl.Series]] = {}
    for column in columns:
        if column.distance_threshold is None or column.not_judged:
            undrawn[column.column] = column.not_judged or "both sides have one value, the same"
        else:
            sides[column.column] = _drawable(column, reference[column.column], current[column.column])
    kinds = {column.column: column for column in columns if column.column in sides}
    try:
        return (_run(sides, kinds) if sides else None), undrawn
    except Exception:  # noqa: BLE001 - whatever Evidently fails with, a plot never stops a verdict
        _log.exception("Evidently could not draw the columns together; each is tried alone")
    for name, pair in list(sides.items()):
        try:
            _run({name: pair}, kinds)
        except Exception as error:  # noqa: BLE001 - as above; the page says which are lacking
            undrawn[name] = f"{type(error).__name__}: {error}"
            del sides[name]
    return (_run(sides, kinds) if sides else None), undrawn


def _drawable(column: ColumnDrift, reference: pl.Series, current: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Both sides as a histogram can show them: a few thousand values, outliers at the edge, rare categories as one."""
    present = [side.drop_nulls() for side in (reference, current)]
    drawn = _bars(present) if column.kind == "categorical" else _histogram(present)
    first, second = (side.sample(min(MAX_ROWS, side.len()), seed=0).alias(column.column) for side in drawn)
    return first, second


def _bars(sides: Sequence[pl.Series]) -> list[pl.Series]:
    texts = [side.cast(pl.String) for side in sides]
    names = pl.concat(texts).value_counts(sort=True).head(_CATEGORIES).to_series(0)
    return [text.set(~text.is_in(names.implode()), _OTHER) for text in texts]


def _histogram(sides: Sequence[pl.Series]) -> list[pl.Series]:
    numbers = [side.cast(pl.Float64).to_numpy() for side in sides]
    numbers = [side[np.isfinite(side)] for side in numbers]
    low, high = np.quantile(np.concatenate(numbers), [_EDGE, 1 - _EDGE])
    step = (high - low) / _STEPS or 1.0  # no two values are so close that a histogram could not part them
    return [pl.Series(np.rint((np.clip(side, low, high) - low) / step) * step + low) for side in numbers]


def _run(sides: Mapping[str, tuple[pl.Series, pl.Series]], columns: Mapping[str, ColumnDrift]) -> "Snapshot":
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(
        numerical_columns=[name for name in sides if columns[name].kind == "numeric"],
        categorical_columns=[name for name in sides if columns[name].kind == "categorical"],
    )
    frames = [  # filled up with nulls, which Evidently leaves out
        pl.concat([pair[side].to_frame() for pair in sides.values()], how="horizontal_extend") for side in (0, 1)
    ]
    old, new = (Dataset.from_pandas(frame.to_pandas(), data_definition=definition) for frame in frames)
    metrics = [
        ValueDrift(column=name, method=_our_verdict(), threshold=columns[name].distance_threshold) for name in sides
    ]
    token = _judged.set(columns)
    try:
        return Report(metrics).run(new, old)
    finally:
        _judged.reset(token)


def _our_verdict() -> str:
    """Name of the "test" by which Evidently shows our verdict above its plots; registered once."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.calculations.stattests.registry import _registered_stat_tests
    from evidently.legacy.core import ColumnType

    name = "ml_platform"
    if name not in _registered_stat_tests:
        kinds = [ColumnType.Numerical, ColumnType.Categorical]
        test = StatTest(
            name=name, display_name="the largest distance, see the table above", allowed_feature_types=kinds
        )
        register_stattest(test, default_impl=_verdict)
    return name


def _verdict(_: Any, current: Any, __: Any, ___: float) -> tuple[float, bool]:
    column = _judged.get()[str(current.name)]
    return column.distance or 0.0, column.drifted
