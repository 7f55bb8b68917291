"""Training sets: a model's spine with its request features and look-ups, as of each row's instant of prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ml_platform.features.definitions import require_definition
from ml_platform.features.join import feature_column, point_in_time_join, resolve_lookup
from ml_platform.features.pushed import read_view, view_tables
from ml_platform.features.request import (
    RequestFeature,
    add_request_features,
    check_parity,
    derived_types,
    load_request_features,
)
from ml_platform.features.sampling import kept
from ml_platform.features.view_rows import DTYPES
from ml_platform.features.views import FeatureView
from ml_platform.inference.contract import defaults_of
from ml_platform.lake import sql
from ml_platform.lake.tables import Lake
from ml_platform.spec import FieldType, InputField, ModelSpec
from ml_platform.spec_types import Strict

_PARITY_ROWS = 200


class FeatureInfo(Strict):
    """One feature column of a model."""

    name: str
    kind: Literal["numeric", "categorical"]
    source: str  # "input", "derived" or "view:<name>"
    description: str = ""
    unit: str | None = None


class TrainingSetRef(Strict):
    """A stored training set: its table, the tables it was made from, and a summary."""

    model: str
    table: str
    version: int
    rows: int
    as_of: datetime
    first: datetime
    last: datetime
    tables: dict[str, int]
    features: tuple[FeatureInfo, ...]
    view_hashes: dict[str, str]
    label_summary: dict[str, float]


@dataclass(frozen=True)
class _Rows:
    """Rows of the spine with every feature, as a lazy frame, and the table versions they are read from."""

    frame: pl.LazyFrame
    features: tuple[FeatureInfo, ...]
    tables: dict[str, int]


def build_spine(
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    *,
    versions: Mapping[str, int] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> pl.LazyFrame:
    """Run the query of a model's spine and add its request features.

    Parameters
    ----------
    lake
        Where the spine's tables are.
    spec
        The model.
    folder
        Folder of `spec.spine` and `spec.request_features`.
    versions
        Table → version to read; the newest when absent.
    defaults
        Input → value that replaces its nulls; those of the spec when absent.

    Returns
    -------
    polars.LazyFrame
        Columns `spec.id`, `spec.timestamp`, `spec.label_available_at`, `spec.target`, the inputs with their declared
        types, and the request features.

    Raises
    ------
    ValueError
        If the spine lacks a column or its ids are not unique, or a request feature would differ online.
    """
    rows = sql.query(lake, (folder / spec.spine).read_text(encoding="utf-8"), versions=versions)
    features = request_features(spec, folder)
    _check_spine(spec, rows, features)
    defaults = defaults_of(spec.inputs) if defaults is None else defaults
    typed = rows.with_columns(_typed(field, defaults) for field in spec.inputs)
    check_parity(typed.head(_PARITY_ROWS // 2), spec.inputs, features)
    check_parity(typed.tail(_PARITY_ROWS // 2), spec.inputs, features)
    own = [name for name in _own_columns(spec) if name not in features]
    return add_request_features(typed.lazy().select(own), features).select(
        *_own_columns(spec), *_others(spec, features)
    )


def create_training_set(
    lake: Lake, spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView], *, as_of: datetime | None = None
) -> TrainingSetRef:
    """Write `training_sets/<model>`: all rows whose label was known by `as_of`, with features as of their timestamps.

    Parameters
    ----------
    lake
        Where the tables are read and the training set is written.
    spec
        The model.
    folder
        Folder of its spine and request features.
    views
        Feature views by name.
    as_of
        Labels that became available later are not used (UTC); all labels are when absent.

    Raises
    ------
    ValueError
        If no row has a label by then, or a look-up names an unknown view or feature.
    """
    labelled = pl.col(spec.target).is_not_null() & pl.col(spec.label_available_at).is_not_null()
    if as_of is not None:
        labelled &= pl.col(spec.label_available_at) <= as_of
    rows = _feature_frame(lake, spec, folder, views, labelled & kept(pl.col(spec.id), spec.sample))
    frame = rows.frame.sort(spec.timestamp, spec.id).collect(engine="streaming")
    if frame.is_empty():
        raise ValueError(
            f"model '{spec.name}': no row of {spec.spine} has a label available by {as_of or 'now'}; "
            "materialise the raw tables for an earlier range, or move `as_of`"
        )
    table = f"training_sets/{spec.name}"
    version = lake.replace(table, frame)
    known, at = frame.get_column(spec.label_available_at), frame.get_column(spec.timestamp)
    return TrainingSetRef.model_validate(
        {
            "model": spec.name,
            "table": table,
            "version": version,
            "rows": frame.height,
            "as_of": as_of or known.max(),
            "first": at.min(),
            "last": at.max(),
            "tables": rows.tables,
            "features": rows.features,
            "view_hashes": {lookup.view: views[lookup.view].hash for lookup in spec.lookups},
            "label_summary": _summarise(spec, frame.get_column(spec.target)),
        }
    )


def feature_rows(  # noqa: PLR0917 - start and end read well as positional arguments
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    start: datetime,
    end: datetime,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """Compute a training set's columns for rows with start ≤ timestamp < end, labelled or not, by timestamp and id.

    `defaults` replace nulls of the inputs: those of the version that scores, or the spec's when None.
    """
    inside = pl.col(spec.timestamp).is_between(start, end, closed="left")
    rows = _feature_frame(lake, spec, folder, views, inside, defaults=defaults)
    return rows.frame.sort(spec.timestamp, spec.id).collect(engine="streaming")


def feature_infos(
    spec: ModelSpec, derived: Mapping[str, RequestFeature], views: Mapping[str, FeatureView]
) -> tuple[FeatureInfo, ...]:
    """The model's features in the order of its matrix: inputs, request features, look-ups; without timestamps."""
    infos = [
        _info(field.name, field.type, "input", field.description, field.unit) for field in spec.inputs if field.feature
    ]
    infos += [
        _info(name, type_, "derived", derived[name].description, derived[name].unit)
        for name, type_ in derived_types(spec.inputs, derived).items()
    ]
    for lookup in spec.lookups:
        view = _view(spec, lookup.view, views)
        for name in lookup.features or tuple(view.columns):
            column = view.columns[name]
            infos.append(
                _info(
                    feature_column(lookup.called, name),
                    column.type,
                    f"view:{view.name}",
                    column.description,
                    column.unit,
                )
            )
    return tuple(info for info in infos if info is not None)


def _feature_frame(
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    wanted: pl.Expr,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> _Rows:
    """Join features to the rows of the spine that `wanted` selects."""
    used = {lookup.view: _view(spec, lookup.view, views) for lookup in spec.lookups}
    spine_tables = sql.referenced_tables((folder / spec.spine).read_text(encoding="utf-8"))
    view_rows = {table for view in used.values() for table in view_tables(lake, view)}
    tables = lake.versions(sorted({*spine_tables, *view_rows}))
    pinned = {name: tables[name] for name in spine_tables}
    spine = build_spine(lake, spec, folder, versions=pinned, defaults=defaults).filter(wanted)
    resolved = []
    for lookup in spec.lookups:
        view = used[lookup.view]
        require_definition(lake, view, tables[view.table])
        resolved.append(resolve_lookup(lookup, view, read_view(lake, view, tables)))
    infos = feature_infos(spec, request_features(spec, folder), views)
    columns = list(dict.fromkeys([*_own_columns(spec), *(info.name for info in infos)]))
    joined = point_in_time_join(spine, resolved, timestamp=spec.timestamp)
    return _Rows(frame=joined.select(columns), features=infos, tables=tables)


def request_features(spec: ModelSpec, folder: Path) -> dict[str, RequestFeature]:
    """Read the features that are computed from a request, by name; none where the model has no file of them."""
    return load_request_features(folder / spec.request_features) if spec.request_features else {}


def _view(spec: ModelSpec, name: str, views: Mapping[str, FeatureView]) -> FeatureView:
    if name not in views:
        raise ValueError(f"model '{spec.name}': lookups name the feature view '{name}'; there are {sorted(views)}")
    return views[name]


def _own_columns(spec: ModelSpec) -> list[str]:
    named = [spec.id, spec.timestamp, spec.label_available_at, spec.target]
    return list(dict.fromkeys([*named, *(field.name for field in spec.inputs)]))


def _typed(field: InputField, defaults: Mapping[str, Any]) -> pl.Expr:
    """An input with its declared type, and its nulls replaced as in serving."""
    typed = pl.col(field.name).cast(DTYPES[field.type])
    default = defaults.get(field.name)
    return typed if default is None else typed.fill_null(pl.lit(default, dtype=DTYPES[field.type]))


def _others(spec: ModelSpec, features: Mapping[str, RequestFeature]) -> list[str]:
    return [name for name in features if name not in _own_columns(spec)]


def _info(name: str, type_: FieldType, source: str, description: str, unit: str | None) -> FeatureInfo | None:
    if type_ == "timestamp":
        return None
    kind: Literal["numeric", "categorical"] = "categorical" if type_ == "string" else "numeric"
    return FeatureInfo(name=name, kind=kind, source=source, description=description, unit=unit)


def _check_spine(spec: ModelSpec, rows: pl.DataFrame, features: Mapping[str, RequestFeature]) -> None:
    wanted = set(_own_columns(spec)) - set(features)
    if missing := sorted(wanted - set(rows.columns)):
        raise ValueError(f"model '{spec.name}': {spec.spine} must give the columns {missing}; it gives {rows.columns}")
    ids = rows.get_column(spec.id)
    if twice := rows.height - ids.n_unique():
        example = ids.filter(ids.is_duplicated())[0]
        raise ValueError(
            f"model '{spec.name}': {spec.spine} gives {twice} rows with the id of another row, e.g. {example!r}"
        )


def _summarise(spec: ModelSpec, label: pl.Series) -> dict[str, float]:
    if spec.task == "regression":
        figures = label.cast(pl.Float64)
        quantiles = {f"p{q}": figures.quantile(q / 100) for q in (5, 50, 95)}
        summary = {"mean": figures.mean(), "std": figures.std(), **quantiles}
        return {name: float(value) for name, value in summary.items() if isinstance(value, int | float)}
    if spec.task == "binary":
        return {"positive_share": float(label.cast(pl.Float64).sum()) / len(label)}
    counts = label.cast(pl.String).value_counts().sort(spec.target)
    return {f"share:{value}": count / len(label) for value, count in counts.iter_rows()}
