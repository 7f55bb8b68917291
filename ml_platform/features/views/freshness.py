"""Whether feature views were computed from what their sources have by now."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ml_platform.features.views.incremental import computed_from
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.commits import origin
from ml_platform.lake.storage.tables import Lake


@dataclass(frozen=True)
class Behind:
    """A view that was not computed from the newest rows of a source, or whose table is not the one computed last."""

    view: FeatureView
    table: str  # the source, or the view's own table
    used: int
    now: int

    @property
    def reason(self) -> str:
        """What is behind what, and what to do."""
        own = self.view.table
        if self.table != own:
            return f"{own} was computed from version {self.used} of {self.table}, now at {self.now}: materialise {own}"
        if self.used > self.now:
            return f"version {self.now} of {own} was read, {self.used} was computed meanwhile: make the set again"
        return f"{own} is at version {self.now}, which was not computed (last: {self.used}): materialise {own}"


@dataclass(frozen=True)
class Freshness:
    """How some views stand to their sources."""

    behind: tuple[Behind, ...]
    unknown: tuple[str, ...]  # views of which nobody recorded what they were computed from
    views: tuple[str, ...]  # all that were looked at

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is behind, in an order in which it can be materialised."""
        return tuple(one.reason for one in self.behind)


def check_freshness(
    lake: Lake,
    tables: Iterable[str],
    views: Mapping[str, FeatureView],
    *,
    versions: Mapping[str, int] | None = None,
    max_lag: timedelta = timedelta(0),
) -> Freshness:
    """Compare what views were computed from with what their sources have, down to the raw tables.

    Commits that changed no row (compaction, vacuum) do not count. A restored table has the rows of the version that was
    restored.

    Parameters
    ----------
    lake
        Where the tables are.
    tables
        Tables that are read; those that are no view's are ignored.
    views
        Feature views by name.
    versions
        Table → version that counts as its newest; the newest of all others.
    max_lag
        Changes of a source that are no older do not count; of a table that a stream fills, those of `stream.max_lag`.
    """
    behind: list[Behind] = []
    unknown: list[str] = []
    seen: dict[str, FeatureView] = {}

    def visit(table: str) -> None:
        schema, _, name = table.partition("/")
        if schema != "features" or name not in views or name in seen:
            return
        view = seen[name] = views[name]
        for source in view.source_tables:
            visit(source)
        known = computed_from(lake, view)
        if known is None:
            unknown.append(name)
            return
        computed, sources = known
        for source, used in {view.table: computed, **sources}.items():
            now = (versions or {}).get(source)
            now = lake.version(source) if now is None else now
            allowed = timedelta(0) if source == view.table else max_lag
            if view.stream is not None and source in view.source_tables:  # it has new rows every few seconds
                allowed = max(allowed, view.stream.max_lag)
            if used != now and _changed(lake, source, used, now, allowed):
                behind.append(Behind(view, source, used, now))

    for table in sorted(tables):
        visit(table)
    return Freshness(tuple(behind), tuple(unknown), tuple(sorted(seen)))


def _changed(lake: Lake, table: str, used: int, now: int, max_lag: timedelta) -> bool:
    newest = lake.snapshot(table)
    if used > newest.version():  # deleted, and made anew
        return True
    if origin(newest, used) == origin(newest, now):
        return False
    if used > now:
        return True
    since = newest.history(newest.version() - used)[-1]  # the first commit that was not read
    return datetime.now(UTC) - datetime.fromtimestamp(since["timestamp"] / 1000, UTC) >= max_lag
