"""How a model's features are made: as the project's files say now, or as a trained version keeps it in its manifest.

Training alone reads the files. Whatever scores a version (batch, the gate, the skew check) takes the definitions of its
manifest, as serving does: an edit of `request_features.py` or `defs.yaml` changes the next version, and none before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import polars as pl

from ml_platform.features.expressions.column_operations import NotVectorised
from ml_platform.features.expressions.columns import ColumnFeature, Columns, compile_columns
from ml_platform.features.expressions.compile import columns_of
from ml_platform.features.expressions.frame_columns import FrameColumns
from ml_platform.features.expressions.request_features import (
    RequestFeature,
    add_request_features,
    check_request_feature_parity,
    load_request_features,
)
from ml_platform.features.online.pushed_rows import read_view, view_tables
from ml_platform.features.point_in_time.lookup import ResolvedLookup, feature_column, resolve_lookup
from ml_platform.features.views.declared_types import DTYPES, UTC_MICROSECONDS
from ml_platform.features.views.recorded_definitions import ViewChanged, require_definition
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Derived, Input, Manifest, ViewLookup, feature_of
from ml_platform.spec.inputs import InputField
from ml_platform.spec.model import Lookup, ModelSpec

_PARITY_ROWS = 200
_CHUNK_ROWS = 50_000  # rows held as Python values at a time
_VECTOR_TYPES: dict[str, pl.DataType] = {
    "timestamp": UTC_MICROSECONDS,
    "integer": pl.Int64(),
    "number": pl.Float64(),
}


@dataclass(frozen=True)
class FeatureDefinitions:
    """Definitions that turn rows of inputs into rows of features.

    Attributes
    ----------
    inputs
        The request's fields, with their types and defaults.
    derived
        Names of the features computed from the inputs.
    lookups
        Features taken from views.
    timestamp
        Column with the instant that features are taken as of: of the spine, an input, or derived.
    derive
        Adds the derived features to typed rows.
    """

    inputs: Sequence[InputField | Input]
    derived: tuple[str, ...]
    lookups: tuple[Lookup, ...]
    timestamp: str
    derive: Callable[[pl.DataFrame], pl.LazyFrame]

    @classmethod
    def of_spec(cls, spec: ModelSpec, folder: Path) -> Self:
        """Read the definitions that the next training is made by.

        Their `derive` computes some rows in plain Python too, and raises ValueError where serving would differ.
        """
        features = request_features(spec, folder)

        def derive(rows: pl.DataFrame) -> pl.LazyFrame:
            for some in (rows.head(_PARITY_ROWS // 2), rows.tail(_PARITY_ROWS // 2)):
                check_request_feature_parity(some, spec.inputs, features)
            return add_request_features(rows.lazy(), features)

        return cls(spec.inputs, tuple(features), spec.lookups, spec.timestamp, derive)

    @classmethod
    def of_version(cls, manifest: Manifest, spec: ModelSpec, views: Mapping[str, FeatureView]) -> Self:
        """Take the definitions that a trained version keeps.

        Parameters
        ----------
        manifest
            Of the version.
        spec
            The model; its `timestamp` is the instant of rows whose request has none.
        views
            Feature views by name, as they are now.

        Raises
        ------
        ViewChanged
            When a view is gone or defined otherwise than when the version was trained: its values are then others.
        """
        return cls.of_manifest(manifest, views, timestamp=manifest.as_of or spec.timestamp)

    @classmethod
    def of_manifest(cls, manifest: Manifest, views: Mapping[str, FeatureView], *, timestamp: str) -> Self:
        """Take them for rows of which `timestamp` has the instant; otherwise as `of_version`."""
        require_views(manifest, views)
        features = compile_columns([(feature.name, feature.tree) for feature in manifest.derived])
        kinds = {field.name: str(field.type) for field in manifest.inputs}

        def derive(rows: pl.DataFrame) -> pl.LazyFrame:
            chunks = [
                derived_features(chunk, kinds, manifest.derived, features) for chunk in rows.iter_slices(_CHUNK_ROWS)
            ]
            return (
                pl.concat(chunks).lazy() if chunks else derived_features(rows, kinds, manifest.derived, features).lazy()
            )

        return cls(
            inputs=manifest.inputs,
            derived=tuple(feature.name for feature in manifest.derived),
            lookups=tuple(map(_lookup, manifest.lookups)),
            timestamp=timestamp,
            derive=derive,
        )

    def resolve(
        self, lake: Lake, views: Mapping[str, FeatureView], versions: Mapping[str, int] | None = None
    ) -> list[ResolvedLookup]:
        """Find the rows of the views that are looked up, at pinned versions of their tables or the newest.

        Raises
        ------
        ViewChanged
            When a view's table was computed by another definition than the view's.
        """
        if versions is None:
            used = {table for lookup in self.lookups for table in view_tables(lake, views[lookup.view])}
            versions = lake.versions(sorted(used))
        resolved = []
        for lookup in self.lookups:
            view = views[lookup.view]
            require_definition(lake, view, versions[view.table])
            resolved.append(resolve_lookup(lookup, view, read_view(lake, view, versions)))
        return resolved


def request_features(spec: ModelSpec, folder: Path) -> dict[str, RequestFeature]:
    """Read the features that the next training computes from a request, by name; none where there is no file."""
    return load_request_features(folder / spec.request_features) if spec.request_features else {}


def require_views(manifest: Manifest, views: Mapping[str, FeatureView]) -> None:
    """Refuse a version whose views are gone or have another definition now (raises ViewChanged)."""
    changed = [
        f"'{item.view}' (trained on {item.view_hash[:12]}, now {views[item.view].hash[:12]})"
        if item.view in views
        else f"'{item.view}' (which is gone)"
        for item in manifest.lookups
        if item.view not in views or views[item.view].hash != item.view_hash
    ]
    if changed:
        raise ViewChanged(
            f"{manifest.model}: the definition of {', '.join(changed)} changed since the version of model digest "
            f"{manifest.model_digest[:12]} was trained; run {manifest.model}_retrain, or restore the definition"
        )


def unlike_features(manifest: Manifest, other: Manifest) -> list[str]:
    """Features of a version that another version makes in another way, or not at all.

    Without any, rows whose features were computed for the other serve this one as well.
    """
    wanted, given = _origins(manifest), _origins(other)
    return sorted(feature.name for feature in manifest.features if wanted[feature.name] != given.get(feature.name))


def _origins(manifest: Manifest) -> dict[str, Any]:
    """What each input, derived and looked-up feature is made of, down to the inputs."""
    origins: dict[str, Any] = {field.name: (field.type, field.default) for field in manifest.inputs}
    for feature in manifest.derived:
        used = {name: origins.get(name) for name in columns_of(feature.tree)}
        origins[feature.name] = (feature.type, feature.tree, used)
    instant = manifest.as_of and origins[manifest.as_of]
    for item in manifest.lookups:
        keys = {column: origins.get(name) for column, name in item.keys.items()}
        for column in item.features:
            name = feature_of(item.view, column)
            origins[column] = (item.view_hash, name, keys, item.ttl_seconds, item.knowledge_time, instant)
    return origins


def _lookup(item: ViewLookup) -> Lookup:
    names = [feature_of(item.view, column) for column in item.features]
    called = item.features[0].removesuffix(feature_column("", names[0])) if names else item.view
    return Lookup(
        view=item.view,
        name=None if called == item.view else called,
        features=tuple(names),
        keys=item.keys,
        knowledge_time=item.knowledge_time,
    )


def derived_features(
    rows: pl.DataFrame, kinds: Mapping[str, str], derived: Sequence[Derived], features: Sequence[ColumnFeature]
) -> pl.DataFrame:
    """Compute the derived features of typed rows by the functions that serving has (raises what they raise)."""
    if rows.is_empty():
        return rows.with_columns(pl.lit(None, DTYPES[feature.type]).alias(feature.name) for feature in derived)
    used = sorted(set().union(*(columns_of(feature.tree) for feature in derived)) & set(kinds))
    # Rows with a null are computed one by one: apart from the others, which then are by column.
    odd = rows.select(pl.any_horizontal([pl.lit(value=False), *(pl.col(name).is_null() for name in used)])).to_series()
    if odd.len() == rows.height and 0 < odd.sum() < rows.height:
        numbered = rows.with_row_index("__place")
        parts = [
            derived_features(part, kinds, derived, features) for part in (numbered.filter(~odd), numbered.filter(odd))
        ]
        return pl.concat(parts).sort("__place").drop("__place")
    columns = FrameColumns(rows.select(used), kinds)
    columns.derive(features)
    return rows.with_columns(_series(columns, feature) for feature in derived)


def _series(columns: Columns, feature: Derived) -> pl.Series:
    try:
        vector = columns.vector(feature.name)
        values = pl.repeat(vector.values, columns.count, eager=True) if not vector.values.shape else vector.values
        return pl.Series(feature.name, values).cast(_VECTOR_TYPES[vector.kind]).cast(DTYPES[feature.type])
    except NotVectorised:
        values = columns.objects(feature.name)
    try:
        return pl.Series(feature.name, values, dtype=DTYPES[feature.type])
    except TypeError as error:  # of an integer beyond 64 bits
        raise OverflowError(f"'{feature.name}' is no {feature.type}: {str(error).partition(chr(10))[0]}") from error
