"""A look-up: which rows of a view are joined to a spine, and by which keys and times."""

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from ml_platform.features.views.view import FeatureView
from ml_platform.spec.model import Lookup

ROW, SEEN, TIME, VISIBLE = "__row", "__seen", "__time", "__visible"


@dataclass(frozen=True)
class ResolvedLookup:
    """A view's rows, and how they are joined to the spine.

    Attributes
    ----------
    view
        Name of the look-up, by default the view's; its features are named `<view>__<feature>`.
    frame
        The view's rows: entity columns, event time, features.
    on
        The view's entity column → the spine's column.
    features
        Features to take.
    event_time
        Column with the instant from which a row was known.
    created
        Column that decides between rows with the same event time; the latest wins.
    ttl
        Age up to which a row may be used, inclusive; unlimited when None.
    knowledge_time
        Whether a row may only be used from its `created` on, when it was written.
    """

    view: str
    frame: pl.LazyFrame
    on: dict[str, str]
    features: tuple[str, ...]
    event_time: str = "event_time"
    created: str | None = None
    ttl: timedelta | None = None
    knowledge_time: bool = False

    def __post_init__(self) -> None:
        if self.knowledge_time and self.created is None:
            raise ValueError(
                f"lookups: knowledge_time of '{self.view}' needs a view with a `created` column: the instant at which "
                "a row was written"
            )


def feature_column(view: str, feature: str) -> str:
    """Name of a feature in matrices and logs; `view` is the name of the look-up when it has its own."""
    return f"{view}__{feature}"


def resolve_lookup(lookup: Lookup, view: FeatureView, frame: pl.LazyFrame) -> ResolvedLookup:
    """Combine an entry of a model's `lookups` with the view that it names.

    Raises
    ------
    ValueError
        If the entry names a feature or an entity column that the view does not have.
    """
    if unknown := sorted(set(lookup.features) - set(view.columns)):
        raise ValueError(f"lookups: view '{view.name}' has no feature {unknown}; it has {sorted(view.columns)}")
    if unknown := sorted(set(lookup.keys) - set(view.entity)):
        raise ValueError(
            f"lookups: keys {unknown} are no entity columns of '{view.name}'; those are {list(view.entity)}"
        )
    return ResolvedLookup(
        view=lookup.alias,
        frame=frame,
        on={column: lookup.keys.get(column, column) for column in view.entity},
        features=lookup.features or tuple(view.columns),
        event_time=view.event_time,
        created=view.created,
        ttl=view.ttl,
        knowledge_time=lookup.knowledge_time,
    )


def named_columns(lookup: ResolvedLookup) -> pl.LazyFrame:
    """Rename a look-up's columns for the join, and drop rows whose key or time is null: they match no row."""
    seen = [pl.col(lookup.created).alias(SEEN)] if lookup.created else []
    return lookup.frame.select(
        *(pl.col(column).alias(key) for column, key in lookup.on.items()),
        pl.col(lookup.event_time).alias(TIME),
        *seen,
        *(pl.col(feature).alias(feature_column(lookup.view, feature)) for feature in lookup.features),
    ).drop_nulls([*lookup.on.values(), TIME])


def identity(lookup: ResolvedLookup) -> list[str]:
    """Columns that identify a row of a view; between rows equal in them, `created` or the order decides."""
    return [*lookup.on.values(), TIME, *([SEEN] if lookup.knowledge_time else [])]
