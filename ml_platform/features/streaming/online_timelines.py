"""Writes the timelines of entities to the online store, as rows of a view of its own beside that of the table."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ml_platform.features.online.store import OnlineStore
from ml_platform.features.streaming.state_file import decode
from ml_platform.features.streaming.timeline import CHANGES, DELTAS, Timeline, feature_order, stream_view
from ml_platform.features.views.declared_types import DTYPES
from ml_platform.features.views.view import FeatureView


class OnlineTimelines:
    """The timelines of streamed views in an online store.

    Parameters
    ----------
    store
        The store.
    schema
        Types of the raw table's columns, of which entities consist.
    """

    def __init__(self, store: OnlineStore, schema: Mapping[str, pl.DataType]) -> None:
        self._store, self._schema = store, schema

    def has(self, view: FeatureView) -> bool:
        """Whether the store has the view as it is declared now."""
        return self._store.view_hash(stream_view(view.name)) == view.hash

    def mark(self, view: FeatureView) -> Any:
        """Where the store is now; `replace` removes what was written before."""
        return self._store.mark(stream_view(view.name))

    def hold_open(self, view: FeatureView) -> None:
        """Open the connection for reads, which stays.

        Else each write would be the only one of an embedded store, whose end tidies the file up.
        """
        self._store.view_hash(stream_view(view.name))

    def write(self, view: FeatureView, timelines: Iterable[tuple[bytes, Timeline]]) -> None:
        """Write the timelines of some entities, by packed key."""
        frame = self._frame(view, timelines)
        if frame.height:
            self._write(view, frame)

    def replace(self, view: FeatureView, timelines: Iterable[tuple[bytes, Timeline]], mark: Any) -> None:
        """Write the timelines of all entities, instead of everything from before `mark`."""
        self._write(view, self._frame(view, timelines), whole_since=mark)

    def _write(self, view: FeatureView, frame: pl.DataFrame, **options: Any) -> None:
        self._store.write(stream_view(view.name), view.entity, frame, view.event_time, view_hash=view.hash, **options)

    def _frame(self, view: FeatureView, timelines: Iterable[tuple[bytes, Timeline]]) -> pl.DataFrame:
        rows = [(*decode(key), timeline.since, *timeline.stored()) for key, timeline in timelines]
        schema: dict[str, Any] = {name: self._schema[name] for name in view.entity}
        schema |= {view.event_time: pl.Int64()}
        schema |= {name: DTYPES[view.columns[name].type] for name in feature_order(view.columns)}
        schema |= {CHANGES: pl.List(pl.Int64()), DELTAS: pl.Binary()}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        return frame.with_columns(pl.from_epoch(view.event_time, "us").dt.replace_time_zone("UTC"))
