"""What the windows of a view compute, in the form in which a stream computes it."""

from typing import Any, NamedTuple

from ml_platform.features.rolling.arrival_sql import scaled_column
from ml_platform.features.rolling.spec import SUMS, Rolling, microseconds, value_column, window_name
from ml_platform.features.streaming.timeline import feature_order


class Feature(NamedTuple):
    """One feature: an aggregate over one window."""

    place: int  # among the features of a timeline
    function: str
    input: int  # position among an event's values; -1 for a count
    unit: float  # what a sum is divided by


class WindowPlan:
    """A view's aggregates by window, and the values that they need of an event.

    Attributes
    ----------
    lengths
        Of the windows in microseconds.
    inputs
        Columns of `Rolling.events_sql` with an event's values, in the order of a tuple of values.
    kinds
        What is kept of each value: `sum`, `distinct`, `last`, `min` or `max`.
    sums, distinct, newest
        Positions of the values of which sums, counts of values, or newest values are kept.
    features
        Features of each window.
    only_events
        Whether rows are as of events only, so that nothing ever leaves a window by itself.
    """

    def __init__(self, rolling: Rolling) -> None:
        order = {name: place for place, name in enumerate(feature_order(rolling.columns()))}
        self.lengths = tuple(microseconds(window) for window in rolling.windows)
        self.longest = max(self.lengths)
        self.only_events = rolling.rows == "events"
        self.size = len(order)
        inputs: dict[tuple[str, str], int] = {}
        for item in rolling.aggregates.values():
            if item.function in SUMS:
                inputs.setdefault((scaled_column(item), "sum"), len(inputs))
            elif item.column is not None:
                inputs.setdefault((value_column(item.column), item.function), len(inputs))
        self.inputs = tuple(column for column, _ in inputs)
        self.kinds = tuple(kind for _, kind in inputs)
        self.sums = tuple(place for place, kind in enumerate(self.kinds) if kind == "sum")
        self.distinct = tuple(place for place, kind in enumerate(self.kinds) if kind == "distinct")
        self.newest = tuple(place for place, kind in enumerate(self.kinds) if kind in {"last", "min", "max"})
        self.features: list[list[Feature]] = []
        for window in rolling.windows:
            features = []
            for name, item in rolling.aggregates.items():
                key: Any = None
                if item.function in SUMS:
                    key = (scaled_column(item), "sum")
                elif item.column is not None:
                    key = (value_column(item.column), item.function)
                place = order[f"{name}_{window_name(window)}"]
                unit = 10.0 ** (item.decimals or 0)
                features.append(Feature(place, item.function, -1 if key is None else inputs[key], unit))
            self.features.append(features)
