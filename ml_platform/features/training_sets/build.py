"""Training sets: a model's spine with its request features and look-ups, as of each row's instant of prediction."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import polars as pl

from ml_platform.features.expressions.request_features import RequestFeature, derived_types
from ml_platform.features.online.pushed_rows import view_tables
from ml_platform.features.point_in_time.join import point_in_time_join
from ml_platform.features.point_in_time.lookup import feature_column
from ml_platform.features.training_sets.documents import FeatureInfo, TrainingSetRef
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions, request_features
from ml_platform.features.training_sets.frame_digest import frame_digest
from ml_platform.features.training_sets.row_weights import check_weights, refuse_wrong_weights, summarise_weights
from ml_platform.features.training_sets.sampling import sample_filter
from ml_platform.features.training_sets.spine import Span, read_spine, spine_text, where
from ml_platform.features.training_sets.spine_spans import check_unique, spine_spans
from ml_platform.features.training_sets.spine_values import typed_inputs
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query import sql
from ml_platform.lake.query.sql_errors import naming_the_query
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.input_contract import defaults_of
from ml_platform.spec.input_rules import FieldType
from ml_platform.spec.model import ModelSpec


def spine_labels(
    lake: Lake, spec: ModelSpec, folder: Path, *, span: Span | None = None, inputs: Sequence[str] = ()
) -> pl.LazyFrame:
    """Read the labels that are known, of a span if given: id, `label_available_at` and target, without nulls.

    Behind them are the `inputs` that are asked for.
    """
    wanted = [spec.id, spec.label_available_at, spec.target]
    columns = list(dict.fromkeys([*wanted, *inputs]))
    rows = read_spine(lake, spec, folder, columns, span=span, without_id=True)
    return rows.lazy().select(columns).drop_nulls(wanted)


def build_training_set(
    lake: Lake, spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView], *, as_of: datetime | None = None
) -> TrainingSetRef:
    """Write `training_sets/<model>`: all rows whose label was known by `as_of`, with features as of their timestamps.

    Where `training` in the spec lets several workers train, the rows are made and written in spans of time, so that the
    set may be larger than this process's memory.

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
        If no row has a label by then, a weight is no weight, or a look-up names an unknown view or feature.
    """
    definitions = FeatureDefinitions.of_spec(spec, folder)
    features = feature_infos(spec, request_features(spec, folder), views)
    tables = tables_read(lake, spec, folder, views, definitions)
    table, spans = f"training_sets/{spec.name}", None
    if spec.training.may_distribute:
        spans = spine_spans(lake, spec, folder, tables)

    def frames() -> Iterator[pl.DataFrame]:
        """Rows of one span after the other, or all."""
        found = False
        every: Sequence[Span | None] = [None] if spans is None else spans
        for span in every:
            frame = labelled_features(lake, spec, folder, views, definitions, tables, features, as_of=as_of, span=span)
            if spec.weight is not None and span is not None:
                refuse_wrong_weights(frame, spec.weight, spec.id)
            if frame.height:
                found = True
                yield frame
        if not found:
            raise ValueError(
                f"model '{spec.name}': no row of {spec.spine} has a label available by {as_of or 'now'}; "
                "materialise the raw tables for an earlier range, or move `as_of`"
            )

    if spans is None:
        [frame] = frames()
        weights = check_weights(frame, spec)
        rows, version, digest = frame.lazy(), lake.replace(table, frame), frame_digest(frame)
    else:
        version = lake.replace_in_batches(table, frames)
        rows, digest = lake.read(table, version=version), ""  # which would take all rows in their order
        check_unique(rows, spec.id, rows.select(pl.len()).collect().item(), where(spec))
        weights = {} if spec.weight is None else summarise_weights(_column(rows, spec.weight))
    labels = _column(rows, spec.target)
    ends = rows.select(
        known=pl.col(spec.label_available_at).max(),
        first=pl.col(spec.timestamp).min(),
        last=pl.col(spec.timestamp).max(),
    ).collect(engine="streaming")
    return TrainingSetRef.model_validate(
        {
            "model": spec.name,
            "table": table,
            "version": version,
            "rows": len(labels),
            "as_of": as_of or ends.item(0, "known"),
            "first": ends.item(0, "first"),
            "last": ends.item(0, "last"),
            "tables": tables,
            "features": features,
            "view_hashes": {lookup.view: views[lookup.view].hash for lookup in spec.lookups},
            "label_summary": _summarise(spec, labels),
            "weight_summary": weights,
            "digest": digest,
        }
    )


def labelled_features(  # noqa: PLR0917 - as `feature_rows` takes them
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    definitions: FeatureDefinitions,
    tables: Mapping[str, int],
    features: Sequence[FeatureInfo],
    *,
    as_of: datetime | None,
    span: Span | None = None,
) -> pl.DataFrame:
    """Compute the rows of a training set, and write nothing: those whose label was known by `as_of`, by instant and id.

    Parameters
    ----------
    lake, spec, folder, views, as_of
        As `build_training_set` takes them.
    definitions
        How the features are made.
    tables
        Table → version to read.
    features
        Columns of the matrix, in order.
    span
        Only rows of these instants.
    """
    labelled = pl.col(spec.target).is_not_null() & pl.col(spec.label_available_at).is_not_null()
    if as_of is not None:
        labelled &= pl.col(spec.label_available_at) <= as_of
    wanted = labelled & sample_filter(pl.col(spec.id), spec.sample)
    if span is not None:
        wanted &= pl.col(span.column).is_between(span.start, span.end, closed="left")
    rows = _feature_frame(lake, spec, folder, views, wanted, definitions, tables, span=span)
    return rows.select(list(dict.fromkeys([*_own_columns(spec, definitions), *(info.name for info in features)])))


def feature_rows(  # noqa: PLR0917 - start and end read well as positional arguments
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    definitions: FeatureDefinitions,
    start: datetime,
    end: datetime,
    *,
    versions: Mapping[str, int] | None = None,
) -> pl.DataFrame:
    """Compute the features of rows with start ≤ instant < end, labelled or not, by instant and id.

    Parameters
    ----------
    lake
        Where the tables are read.
    spec
        The model: its spine, id and label.
    folder
        Folder of its spine.
    views
        Feature views by name.
    definitions
        How the features are made: of the version that is to score the rows.
    start, end
        Span (UTC) of `definitions.timestamp`, the end excluded.
    versions
        Table → version to read; of other tables the newest.

    Returns
    -------
    polars.DataFrame
        Id, instant, `spec.label_available_at`, `spec.target`, the inputs, the derived and the looked-up features.

    Raises
    ------
    ViewChanged
        When a view's table was computed by another definition than the view's.
    ValueError
        When the spine does not give a column that is needed, or has a value that no request has.
    """
    tables = {**tables_read(lake, spec, folder, views, definitions), **(versions or {})}
    span = Span(definitions.timestamp, start, end)
    inside = pl.col(span.column).is_between(start, end, closed="left")
    return _feature_frame(lake, spec, folder, views, inside, definitions, tables, span=span)


def feature_rows_by_id(  # noqa: PLR0917 - as above
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    definitions: FeatureDefinitions,
    ids: pl.Series,
    *,
    versions: Mapping[str, int] | None = None,
) -> pl.DataFrame:
    """Do what `feature_rows` does for the rows with some ids."""
    tables = {**tables_read(lake, spec, folder, views, definitions), **(versions or {})}
    wanted = pl.col(spec.id).is_in(ids.implode())
    return _feature_frame(lake, spec, folder, views, wanted, definitions, tables)


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
                    feature_column(lookup.alias, name),
                    column.type,
                    f"view:{view.name}",
                    column.description,
                    column.unit,
                )
            )
    return tuple(info for info in infos if info is not None)


def tables_read(
    lake: Lake, spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView], definitions: FeatureDefinitions
) -> dict[str, int]:
    """Newest versions of the tables that the spine and the look-ups read."""
    used = [_view(spec, lookup.view, views) for lookup in definitions.lookups]
    text = spine_text(spec, folder)
    with naming_the_query(f"model '{spec.name}'", text, folder / spec.spine):
        versions = lake.versions(sorted(sql.referenced_tables(text)))
    return {**versions, **lake.versions(sorted({table for view in used for table in view_tables(lake, view)}))}


def _feature_frame(  # noqa: PLR0917 - private
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    wanted: pl.Expr,
    definitions: FeatureDefinitions,
    tables: Mapping[str, int],
    *,
    span: Span | None = None,
) -> pl.DataFrame:
    """Make the features of those rows of the spine that `wanted` selects, by instant and id."""
    own = _own_columns(spec, definitions)
    given = [name for name in own if name not in definitions.derived]
    known = span if span is not None and span.column in given else None  # else it is a derived column
    rows = read_spine(lake, spec, folder, given, versions=tables, span=known).select(given)
    typed = typed_inputs(
        rows, definitions.inputs, defaults_of(definitions.inputs), id_column=spec.id, where=where(spec)
    )
    if set(wanted.meta.root_names()) <= set(given):  # before anything is computed that is not wanted
        typed = typed.filter(wanted)
    spine = definitions.derive(typed).filter(wanted)
    spine = spine.select(list(dict.fromkeys([*own, *definitions.derived])))
    resolved = definitions.resolve(lake, views, tables)
    joined = point_in_time_join(spine, resolved, timestamp=definitions.timestamp)
    return joined.sort(definitions.timestamp, spec.id).collect(engine="streaming")


def _view(spec: ModelSpec, name: str, views: Mapping[str, FeatureView]) -> FeatureView:
    if name not in views:
        raise ValueError(f"model '{spec.name}': lookups name the feature view '{name}'; there are {sorted(views)}")
    return views[name]


def _own_columns(spec: ModelSpec, definitions: FeatureDefinitions) -> list[str]:
    known_later = [spec.label_available_at, spec.target, *([spec.weight] if spec.weight else [])]
    named = [spec.id, definitions.timestamp, *known_later]
    return list(dict.fromkeys([*named, *(field.name for field in definitions.inputs)]))


def _info(name: str, type_: FieldType, source: str, description: str, unit: str | None) -> FeatureInfo | None:
    if type_ == "timestamp":
        return None
    kind: Literal["numeric", "categorical"] = "categorical" if type_ == "string" else "numeric"
    return FeatureInfo(name=name, kind=kind, source=source, description=description, unit=unit)


def _column(rows: pl.LazyFrame, name: str) -> pl.Series:
    return rows.select(name).collect(engine="streaming").to_series()


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
