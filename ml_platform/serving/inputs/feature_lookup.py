"""Looks up the features that a request does not carry: one read of the online store for all its rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Literal

import numpy as np

from ml_platform.features.expressions.columns import Columns
from ml_platform.features.online.store import OnlineStore, Row, to_micros
from ml_platform.features.streaming.timeline import newer, row_as_stored, stream_view
from ml_platform.registry.manifest import MISSING_CODE, Feature, Manifest, ViewLookup, feature_of
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed, StoreReads
from ml_platform.serving.inputs.timelines import with_timelines

_FIRST = to_micros(datetime(1, 1, 1, tzinfo=UTC))
_NEVER = _FIRST - 1  # before any event: stands for an unknown entity's event time
_LONGEST = 2**62  # microseconds of a TTL that can be taken from an instant in 64 bits


class _Nothing(dict[str, Any]):
    """The values of an unknown entity: null for every name."""

    def __missing__(self, name: str) -> None:
        return None


_NOTHING = _Nothing()


class ViewsDiffer(RuntimeError):
    """The online store lacks a feature view, or holds another definition of it than the model was trained on."""


class Missing(dict[str, int]):
    """Number of rows without values, by view; and whether that was because the store failed."""

    store_failed = False


class LookedUp:
    """How one view is looked up: the fields that make its key, and the model's columns that take its values."""

    def __init__(self, lookup: ViewLookup, features: Sequence[Feature]) -> None:
        self.name = lookup.view
        self.stream = stream_view(lookup.view) if lookup.streamed else None
        self.keys = tuple(lookup.keys.values())
        self.columns = tuple((feature_of(lookup.view, column), column) for column in lookup.features)
        self.ttl = None if lookup.ttl_seconds is None else min(round(lookup.ttl_seconds * 1e6), _LONGEST)
        positions = {feature.name: position for position, feature in enumerate(features)}
        coded = {feature.name for feature in features if feature.categories is not None}
        self.coded = tuple((name, positions[column]) for name, column in self.columns if column in coded)
        numeric = [(name, positions[column]) for name, column in self.columns if column not in coded]
        self.numeric = tuple(name for name, _ in numeric)
        self._numbers = itemgetter(*self.numeric) if numeric else None
        places = [position for _, position in numeric]
        # A block of neighbouring columns is filled much faster than scattered ones.
        is_block = places == list(range(places[0], places[0] + len(places))) if places else False
        self.places: slice | list[int] = slice(places[0], places[0] + len(places)) if is_block else places

    def numbers(self, entities: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The numeric features of entities (entities × features, float64), NaN for null."""
        assert self._numbers is not None
        try:
            known = list(map(self._numbers, entities))  # takes half as long as the loop below
        except KeyError:  # a row of another definition of the view, written a moment ago
            known = [tuple([entity.get(name) for name in self.numeric]) for entity in entities]
        return np.array(known, dtype=np.float64).reshape(len(entities), len(self.numeric))


@dataclass(frozen=True, slots=True)
class FoundView:
    """What one view has for many rows."""

    view: LookedUp
    entities: list[Mapping[str, Any]]  # values of each distinct entity
    index: np.ndarray  # position of each row's entity in `entities`
    fresh: np.ndarray | None  # whether a row's values are within the TTL; None: those of all rows are

    def fill(self, matrix: np.ndarray, encode: Callable[[int, Sequence[Any]], np.ndarray]) -> None:
        """Write the view's columns of a matrix (rows × features, float64), categories by `encode(position, values)`."""
        view, entities = self.view, self.entities
        if view.numeric:
            matrix[:, view.places] = self._spread(view.numbers(entities), np.nan)
        for name, position in view.coded:
            codes = encode(position, [entity.get(name) for entity in entities])
            matrix[:, position] = self._spread(codes, MISSING_CODE)

    def _spread(self, encoded: np.ndarray, missing: float) -> np.ndarray:
        """Give each row the encoded values of its entity, `missing` where they are not fresh."""
        spread = encoded.take(self.index, axis=0)
        if self.fresh is not None:
            spread[~self.fresh] = missing
        return spread

    def objects(self, name: str) -> list[Any]:
        """One feature of all rows, None where a row has no value."""
        values = [entity.get(name) for entity in self.entities]
        if self.fresh is None:
            return [values[number] for number in self.index.tolist()]
        pairs = zip(self.index.tolist(), self.fresh.tolist(), strict=True)
        return [values[number] if fresh else None for number, fresh in pairs]


class Lookups:
    """The look-ups of one model.

    An entity's newest values count unless they are older than the row's `as_of` by more than the view's TTL. Values
    newer than `as_of` count too: the store keeps only the newest.
    """

    def __init__(self, manifest: Manifest, store: OnlineStore, fallback: Literal["fail", "nulls"] = "fail") -> None:
        self._store = store
        self._fallback = fallback
        self._hashes = {lookup.view: lookup.view_hash for lookup in manifest.lookups}
        self._reads = StoreReads(store)
        self.unverified = False  # the store's views could not be compared yet; until they are, it is not read
        self.views = tuple(LookedUp(lookup, manifest.features) for lookup in manifest.lookups)
        self._has_streams = any(view.stream is not None for view in self.views)

    def check(self) -> None:
        """Compare the store's views with those that the model was trained on.

        Raises
        ------
        ViewsDiffer
            When a view is missing or differs; the message names each, and what to do.
        OnlineStoreFailed
            When the store cannot be read.
        """
        problems = []
        streams = {view.stream: self._hashes[view.name] for view in self.views if view.stream is not None}
        for view, wanted in [*self._hashes.items(), *streams.items()]:
            try:
                stored_hash = self._store.view_hash(view)
                is_there = stored_hash is not None or self._store.exists()
            except Exception as error:
                raise OnlineStoreFailed(f"the online store cannot be read: {type(error).__name__}") from error
            if not is_there:
                raise OnlineStoreFailed(f"there is no online store: materialise online/{view}")
            if stored_hash is None and view in streams:
                continue  # the stream has not begun: what was published counts
            if stored_hash is None:
                problems.append(f"'{view}' is not in the online store: materialise online/{view}")
            elif stored_hash != wanted:
                problems.append(
                    f"'{view}' is {stored_hash[:12]} in the online store, the model was trained on {wanted[:12]}: "
                    f"materialise online/{view} from the definition it was trained on, or train again on the new one"
                )
        if problems:
            raise ViewsDiffer("; ".join(problems))
        self.unverified = False

    def find(self, columns: Columns, as_of: np.ndarray) -> tuple[list[FoundView], "Missing"]:
        """Look up many rows by column; each entity is read once.

        Parameters
        ----------
        columns
            Inputs and derived features, from which the keys are taken.
        as_of
            Instant of each row in microseconds since 1970 (UTC).

        Returns
        -------
        tuple
            What each view has, and how many rows have no value.

        Raises
        ------
        OnlineStoreFailed
            When the store cannot be read and the fallback is "fail".
        """
        requests: list[tuple[str, tuple[Any, ...]]] = []
        places = []
        for view in self.views:
            distinct, index = columns.distinct(*view.keys)
            places.append((index, len(requests), len(requests) + len(distinct)))
            keys = distinct if len(view.keys) > 1 else list(zip(distinct, strict=True))
            requests += [(view.name, key) for key in keys]
            if view.stream is not None:
                requests += [(view.stream, key) for key in keys]
        wanted = [request for request in requests if None not in request[1]]
        missing = Missing()
        read, missing.store_failed = self._read(wanted)
        rows = iter(read)
        entries = [None if None in key else next(rows) for _, key in requests]
        if self._has_streams:
            places, entries = with_timelines(self.views, places, entries, as_of)
        known_at = [_NEVER if entry is None else entry.micros for entry in entries]
        values: list[Mapping[str, Any]] = [_NOTHING if entry is None else entry.values for entry in entries]
        views = []
        latest = int(as_of.max())
        for view, (index, first, last) in zip(self.views, places, strict=True):
            fresh = None
            if min(known_at[first:last]) < (_FIRST if view.ttl is None else max(latest - view.ttl, _FIRST)):
                oldest = _FIRST if view.ttl is None else np.maximum(as_of - view.ttl, _FIRST)
                fresh = np.array(known_at[first:last], dtype=np.int64).take(index) >= oldest
                if count := len(index) - int(np.count_nonzero(fresh)):
                    missing[view.name] = missing.get(view.name, 0) + count
                else:
                    fresh = None
            views.append(FoundView(view, values[first:last], index, fresh))
        return views, missing

    def _read(self, wanted: Sequence[tuple[str, tuple[Any, ...]]]) -> tuple[Sequence[Row | None], bool]:
        """Read rows of the store; also give whether it failed and the fallback answers with nulls."""
        if not wanted:
            return [], False
        try:
            if self.unverified:
                raise OnlineStoreFailed("the online store cannot be read: its views could not be compared yet")
            return self._reads.read(wanted), False
        except OnlineStoreFailed:
            if self._fallback == "fail":
                raise
        return [None] * len(wanted), True

    def add(self, rows: Sequence[dict[str, Any]], as_of: Sequence[datetime]) -> "Missing":
        """Put every view's features into the rows, null where the store has no fresh value.

        Parameters
        ----------
        rows
            Values by name: inputs and derived features, from which the keys are taken. Changed in place.
        as_of
            Instant of each row (UTC).

        Returns
        -------
        Missing
            How many rows have no value, by view.

        Raises
        ------
        OnlineStoreFailed
            When the store cannot be read and the fallback is "fail".
        """
        if not self.views:
            return Missing()
        requests: dict[tuple[str, tuple[Any, ...]], int] = {}
        wanted = []
        for row in rows:
            for view in self.views:
                key = tuple([row[name] for name in view.keys])
                wanted.append(None if None in key else requests.setdefault((view.name, key), len(requests)))
                if view.stream is not None:
                    wanted.append(None if None in key else requests.setdefault((view.stream, key), len(requests)))
        missing = Missing()
        stored, missing.store_failed = self._read(list(requests))
        position = 0
        for row, instant in zip(rows, as_of, strict=True):
            now = to_micros(instant)
            for view in self.views:
                number = wanted[position]
                position += 1
                entry = None if number is None else stored[number]
                if view.stream is not None:
                    number = wanted[position]
                    position += 1
                    timeline = None if number is None else stored[number]
                    entry = newer(entry, None if timeline is None else row_as_stored(timeline, now))
                if entry is None or (view.ttl is not None and entry.micros < now - view.ttl):
                    missing[view.name] = missing.get(view.name, 0) + 1
                    for _, column in view.columns:
                        row[column] = None
                else:
                    values = entry.values
                    for name, column in view.columns:
                        row[column] = values.get(name)
        return missing
