"""The lake in a notebook, and training sets from any labelled rows, with features as of each row's timestamp."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.features.online.pushed_rows import pushed_overlays, read_view, view_tables
from ml_platform.features.point_in_time.join import Engine, point_in_time_join
from ml_platform.features.point_in_time.lookup import resolve_lookup
from ml_platform.features.training_sets.sampling import sample_filter
from ml_platform.features.views.load import load_views
from ml_platform.features.views.recorded_definitions import require_definition
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.bound import binding, bound_lake
from ml_platform.lake.errors import TableNotFound
from ml_platform.lake.query import sql
from ml_platform.lake.query.overlays import Overlays
from ml_platform.lake.query.sql_functions import SqlFunctions
from ml_platform.lake.storage.snapshots import instant
from ml_platform.lake.storage.tables import Lake
from ml_platform.project import current_project
from ml_platform.settings import Settings
from ml_platform.spec.model import Lookup, check_lookups

if TYPE_CHECKING:
    import pandas


class NotebookLake(Lake):
    """A `Lake` that also answers SQL."""

    def sql(
        self, select: str, *, versions: Mapping[str, int] | None = None, as_of: datetime | str | None = None
    ) -> pl.DataFrame:
        """Run one SELECT over tables named `schema.name`, at pinned versions or as of a time (by default in UTC).

        A feature view's table includes its pushed rows. `predict('<model>', <row>)` scores rows.

        Examples
        --------
        >>> import tempfile
        >>> lake = open_lake(tempfile.mkdtemp())
        >>> _ = lake.append("raw/readings", pl.DataFrame({"value": [1.0, 2.0]}))
        >>> _ = lake.append("raw/readings", pl.DataFrame({"value": [6.0]}))
        >>> lake.sql("SELECT avg(value) FROM raw.readings").item()
        3.0
        >>> lake.sql("SELECT avg(value) FROM raw.readings", versions={"raw/readings": 0}).item()
        1.5
        """
        at = instant(as_of) if isinstance(as_of, str) else as_of
        return sql.query(
            self, select, versions=versions, as_of=at, overlays=project_overlays(self), functions=_functions(self)
        )


def open_lake(uri: str | None = None) -> NotebookLake:
    """Open the project's lake (from the settings in the environment), or the one at `uri`.

    Where an access policy is in force, the project's lake is that of whose key `ML_PLATFORM_KEY` is.

    Raises
    ------
    AccessDenied
        When a key is wanted, and there is none that is valid.
    """
    settings = Settings()
    return NotebookLake(uri) if uri else NotebookLake(settings.lake_uri, **binding(settings, "notebook"))


def project_overlays(lake: Lake) -> Overlays:
    """Make the overlays by which SQL sees the pushed rows of the project's feature views."""
    return pushed_overlays(lake, _project_views)


def _functions(lake: Lake) -> SqlFunctions:
    # By name: scoring is a room above, and this is where a notebook begins.
    made: SqlFunctions = import_module("ml_platform.scoring.sql_predict").project_functions(lake.guard)
    return made


def _project_views() -> dict[str, FeatureView]:
    return load_views(current_project().defs / "features")


@dataclass(frozen=True)
class TrainingSet:
    """Rows with their features, and the table versions they were read from, which as `versions` give the same rows."""

    frame: pl.DataFrame
    tables: dict[str, int]  # lake table → version
    view_hashes: dict[str, str]


def create_training_set(
    spine: "pl.DataFrame | pl.LazyFrame | pandas.DataFrame | str",
    lookups: Sequence[str | Lookup],
    label: str,
    *,
    timestamp: str = "event_time",
    label_available_at: str | None = None,
    as_of: datetime | str | None = None,
    sample: float | Mapping[Any, float] = 1.0,
    lake: Lake | None = None,
    views: Mapping[str, FeatureView] | None = None,
    versions: Mapping[str, int] | None = None,
    engine: Engine = "polars",
    memory_limit: str | None = None,
) -> TrainingSet:
    """Join features to labelled rows, as they were known at each row's timestamp.

    Parameters
    ----------
    spine
        Rows with the label, a timestamp with time zone and the keys of the views: a frame of Polars or pandas, or SQL
        over the lake.
    lookups
        Names of views, or `Lookup`s, which can pick features, rename keys, name the look-up (when a view is looked up
        twice) or ask for `knowledge_time`.
    label
        Column of the spine; rows without one are left out.
    timestamp
        Column with the instant as of which features are taken.
    label_available_at
        Column with the instant from which the label is known; `as_of` needs it.
    as_of
        Labels that became available later are not used: an instant with time zone, or a text (by default in UTC).
    sample
        Share of the rows to keep, or a share per value of the label (rows of other values are all kept); the same rows
        every time, by a hash of the row. Sampling by label shifts the scores of the model that is trained.
    lake, views
        The project's own when absent.
    versions
        Lake table → version to read; the newest when absent.
    engine, memory_limit
        See `ml_platform.features.point_in_time.join.point_in_time_join`.

    Raises
    ------
    ValueError
        If a look-up names an unknown view, feature or column, a column has the wrong type, `as_of` comes without
        `label_available_at`, `sample` names a value that the label does not have, or another definition computed a
        view's table.
    AccessDenied
        If a table or view is not granted; masked columns and filtered rows are joined as they are granted.
    ml_platform.lake.errors.TableNotFound
        If a view has not been computed yet, or `versions` names a table that does not exist.
    """
    lake = lake or bound_lake(Settings(), "training")
    views = views if views is not None else _project_views()
    if isinstance(lookups, str | Lookup):
        raise ValueError(f"lookups: wanted a list of them, found one: [{lookups!r}]")
    chosen = [Lookup(view=item) if isinstance(item, str) else item for item in lookups]
    check_lookups(chosen)
    if unknown := sorted({item.view for item in chosen} - set(views)):
        raise ValueError(f"lookups: there is no feature view {unknown}; there are {sorted(views)}")
    read = set(sql.referenced_tables(spine)) if isinstance(spine, str) else set()
    used = [view for name, view in views.items() if view.table in read or name in {item.view for item in chosen}]
    tables = _versions(lake, read, used, versions or {})
    overlays = pushed_overlays(lake, lambda: views)
    if isinstance(spine, str):
        rows = sql.query(lake, spine, versions=tables, overlays=overlays).lazy()
    else:
        rows = (spine if isinstance(spine, pl.DataFrame | pl.LazyFrame) else pl.from_pandas(spine)).lazy()
    instants = [timestamp, *([label_available_at] if label_available_at else [])]
    _check_columns(rows, [label, *instants], instants)
    rows = rows.filter(pl.col(label).is_not_null())
    if as_of is not None:
        rows = rows.filter(_known_by(as_of, label_available_at))
    if isinstance(sample, Mapping):
        _check_values(rows, label, sample)
    # By a hash: the order of rows may differ next time.
    rows = rows.filter(sample_filter(pl.struct(pl.all()), sample, label))
    for item in chosen:
        require_definition(lake, views[item.view], tables[views[item.view].table])
    resolved = [resolve_lookup(item, views[item.view], read_view(lake, views[item.view], tables)) for item in chosen]
    joined = point_in_time_join(rows, resolved, timestamp=timestamp, engine=engine, memory_limit=memory_limit)
    return TrainingSet(
        frame=joined.collect(engine="streaming"),
        tables=tables,
        view_hashes={item.view: views[item.view].hash for item in chosen},
    )


def _versions(
    lake: Lake, spine_tables: set[str], views: Sequence[FeatureView], pinned: Mapping[str, int]
) -> dict[str, int]:
    """Version to read of each table of the spine and the views: the pinned one, else the newest."""
    for name in pinned:
        if not lake.exists(name):
            raise TableNotFound(name, lake.tables(), lake.uri)
    read = set(spine_tables)
    for view in views:
        # A pinned view's table without a pinned table of pushed rows: there were no pushed rows then.
        read |= {name for name in view_tables(lake, view) if name in pinned or view.table not in pinned}
    return {name: pinned[name] if name in pinned else lake.version(name) for name in sorted(read)}


def _known_by(as_of: datetime | str, label_available_at: str | None) -> pl.Expr:
    """Condition that a label was known at an instant (raises ValueError)."""
    if label_available_at is None:
        raise ValueError("as_of: say in `label_available_at` which column tells when the label became known")
    at = instant(as_of) if isinstance(as_of, str) else as_of
    if at.tzinfo is None:
        raise ValueError(f"as_of: wanted an instant with time zone, found {at}; e.g. .replace(tzinfo=UTC)")
    return pl.col(label_available_at) <= at


def _check_columns(rows: pl.LazyFrame, wanted: Sequence[str], instants: Sequence[str]) -> None:
    schema = rows.collect_schema()
    if missing := sorted(set(wanted) - set(schema)):
        raise ValueError(f"training set: the spine has no column {missing}; it has {schema.names()}")
    for name in instants:
        dtype = schema[name]
        if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
            raise ValueError(
                f"training set: '{name}' of the spine must be a timestamp with time zone, found {dtype}; give it one: "
                f"dt.replace_time_zone('UTC'), or in SQL {name}::TIMESTAMP AT TIME ZONE 'UTC'"
            )


def _check_values(rows: pl.LazyFrame, label: str, sample: Mapping[Any, float]) -> None:
    values = rows.select(pl.col(label).unique()).collect().to_series().to_list()
    if unknown := [value for value in sample if not any(value == known for known in values)]:
        raise ValueError(f"sample: the label '{label}' has no value {unknown}; it has {values[:10]}")
