"""Features that a request does not carry: read from the online store for all its rows in one round trip."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from ml_platform.features.online import OnlineStore, Row
from ml_platform.features.vectorised import Columns, microseconds
from ml_platform.registry.manifest import Manifest, ViewLookup

logger = logging.getLogger("serving")

_NEVER = datetime(1, 1, 1, tzinfo=UTC)  # before any event: when an entity that the store does not know was known
_NEVER_MICROSECONDS = int(microseconds([_NEVER])[0])
_MICROSECOND = timedelta(microseconds=1)
_NOTHING: Mapping[str, Any] = {}


class ViewsDiffer(RuntimeError):
    """The online store holds a feature view that is not the one the model was trained on, or does not hold it yet."""


class OnlineStoreFailed(RuntimeError):
    """The online store could not be read."""


class Missing(dict[str, int]):
    """Rows that found nothing, by view; and whether that was because the store failed."""

    store_failed = False


class _View:
    """How one view is looked up: from which fields its key comes, and which columns its values become."""

    def __init__(self, lookup: ViewLookup) -> None:
        self.name = lookup.view
        self.keys = tuple(lookup.keys.values())
        prefix = f"{lookup.view}__"
        self.columns = tuple(
            (name.removeprefix(prefix), prefix + name.removeprefix(prefix)) for name in lookup.features
        )
        self.ttl = None if lookup.ttl_seconds is None else timedelta(seconds=lookup.ttl_seconds)


@dataclass(frozen=True, slots=True)
class FoundView:
    """What one view has for many rows: values per entity, each row's entity, and which rows it counts for."""

    columns: tuple[tuple[str, str], ...]  # name in the view, name in the matrix
    entities: list[Mapping[str, Any]]
    index: np.ndarray
    fresh: np.ndarray | None  # None: for all rows

    def values(self, name: str) -> list[Any]:
        """One feature of every entity, None where it has none."""
        return [entity.get(name) for entity in self.entities]

    def spread(self, encoded: np.ndarray, missing: float) -> np.ndarray:
        """Encoded values of the rows, of encoded values (entities, or entities × features)."""
        spread = encoded[self.index]
        if self.fresh is not None:
            spread[~self.fresh] = missing
        return spread

    def objects(self, name: str) -> list[Any]:
        """One feature of the rows, None where they have none."""
        values = self.values(name)
        if self.fresh is None:
            return [values[number] for number in self.index.tolist()]
        pairs = zip(self.index.tolist(), self.fresh.tolist(), strict=True)
        return [values[number] if fresh else None for number, fresh in pairs]


class Lookups:
    """The look-ups of one model.

    An entity's newest values count when they are not older than the view's TTL before the row's `as_of`; what is newer
    than `as_of` counts too, since online there is no later knowledge than now.
    """

    def __init__(self, manifest: Manifest, store: OnlineStore, fallback: Literal["fail", "nulls"] = "fail") -> None:
        self._store = store
        self._fallback = fallback
        self._hashes = {lookup.view: lookup.view_hash for lookup in manifest.lookups}
        self._views = tuple(_View(lookup) for lookup in manifest.lookups)

    def check(self) -> None:
        """Compare the store's views with those that the model was trained on.

        Raises
        ------
        ViewsDiffer
            Naming each view, what was found, and what to do.
        OnlineStoreFailed
            When the store cannot be read.
        """
        problems = []
        for view, wanted in self._hashes.items():
            try:
                found = self._store.view_hash(view)
            except Exception as error:
                raise OnlineStoreFailed(f"the online store cannot be read: {type(error).__name__}") from error
            if found is None:
                problems.append(f"'{view}' is not in the online store: materialise online/{view}")
            elif found != wanted:
                problems.append(
                    f"'{view}' is {found[:12]} in the online store, the model was trained on {wanted[:12]}: "
                    f"materialise online/{view} from the definition it was trained on, or train again on the new one"
                )
        if problems:
            raise ViewsDiffer("; ".join(problems))

    def find(self, columns: Columns, as_of: np.ndarray) -> tuple[list[FoundView], "Missing"]:
        """Look up many rows by column, each entity read once.

        Parameters
        ----------
        columns
            Inputs and derived features, from which the keys are taken.
        as_of
            Instant of each row in microseconds since 1970 (UTC).

        Returns
        -------
        tuple
            What each view has, and how many rows found nothing.

        Raises
        ------
        OnlineStoreFailed
            When the store cannot be read and the fallback is "fail".
        """
        requests: list[tuple[str, tuple[Any, ...]]] = []
        places = []
        for view in self._views:
            keys = list(zip(*[columns.objects(key) for key in view.keys], strict=True))
            numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            places.append((np.array(list(map(numbers.__getitem__, keys))), len(requests), len(numbers)))
            requests += [(view.name, key) for key in numbers]
        wanted = [request for request in requests if None not in request[1]]
        missing = Missing()
        read, missing.store_failed = self._read(wanted)
        found = iter(read)
        entries = [None if None in key else next(found) for _, key in requests]
        views = []
        for view, (index, first, entities) in zip(self._views, places, strict=True):
            rows = entries[first : first + entities]
            known_at = microseconds([_NEVER if entry is None else entry.event_time for entry in rows])[index]
            oldest = _NEVER_MICROSECONDS + 1 if view.ttl is None else as_of - view.ttl // _MICROSECOND
            fresh = known_at >= oldest
            count = int(np.count_nonzero(fresh))
            if count < len(index):
                missing[view.name] = len(index) - count
            values = [_NOTHING if entry is None else entry.values for entry in rows]
            views.append(FoundView(view.columns, values, index, None if count == len(index) else fresh))
        return views, missing

    def _read(self, wanted: Sequence[tuple[str, tuple[Any, ...]]]) -> tuple[Sequence[Row | None], bool]:
        """Rows of the store, and whether it failed."""
        if not wanted:
            return [], False
        try:
            return self._store.read(wanted), False
        except Exception as error:
            logger.error("the online store cannot be read: %s", error)
            if self._fallback == "nulls":
                return [None] * len(wanted), True
            raise OnlineStoreFailed(f"the online store cannot be read: {type(error).__name__}") from error

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
            How many rows found nothing, by view, for those views where that happened.

        Raises
        ------
        OnlineStoreFailed
            When the store cannot be read and the fallback is "fail".
        """
        requests: dict[tuple[str, tuple[Any, ...]], int] = {}
        wanted = []
        for row in rows:
            for view in self._views:
                key = tuple([row[name] for name in view.keys])
                wanted.append(None if None in key else requests.setdefault((view.name, key), len(requests)))
        missing = Missing()
        found, missing.store_failed = self._read(list(requests))
        position = 0
        for row, instant in zip(rows, as_of, strict=True):
            for view in self._views:
                number = wanted[position]
                position += 1
                entry = None if number is None else found[number]
                if entry is None or (view.ttl is not None and entry.event_time < instant - view.ttl):
                    missing[view.name] = missing.get(view.name, 0) + 1
                    for _, column in view.columns:
                        row[column] = None
                else:
                    values = entry.values
                    for name, column in view.columns:
                        row[column] = values.get(name)
        return missing
