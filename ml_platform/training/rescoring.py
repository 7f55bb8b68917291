"""Rows of a training set as another version reads them, which may define the same features otherwise."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from ml_platform.features.feature_definitions import FeatureDefinitions, unlike_features
from ml_platform.features.training_set import feature_rows_by_id
from ml_platform.features.views import FeatureView
from ml_platform.lake.tables import Lake
from ml_platform.registry.manifest import Manifest
from ml_platform.spec import ModelSpec


class NotRescorable(ValueError):
    """The rows are not all there for a version to be given its own features of them."""


def rows_of_version(
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    version: Manifest,
    *,
    rows: pl.DataFrame,
    made_for: Manifest,
    tables: Mapping[str, int],
) -> pl.DataFrame:
    """Give rows the features that a version reads, by its own definitions and in the same order.

    Rows that were computed by equal definitions are returned as they are.

    Parameters
    ----------
    lake
        Where the spine's and the views' tables are.
    spec
        The model.
    folder
        Folder of its spine.
    views
        Feature views by name, as they are now.
    version
        Manifest of the version that is to score the rows.
    rows
        Rows of a training set, with `spec.id`.
    made_for
        Manifest of a version that was trained on that set.
    tables
        Versions of the tables that the set was made from.

    Raises
    ------
    ViewChanged
        When a view that the version looks up has another definition now.
    NotRescorable
        When the spine, read at these versions, lacks some of the rows.
    ValueError
        When the spine no longer gives one of its inputs.
    """
    if rows.is_empty() or not unlike_features(version, made_for):
        return rows
    definitions = FeatureDefinitions.of_version(version, spec, views)
    found = feature_rows_by_id(lake, spec, folder, views, definitions, rows.get_column(spec.id), versions=tables)
    if lost := rows.height - found.height:
        raise NotRescorable(f"{spec.name}: {spec.spine} no longer gives {lost} of {rows.height} rows with their ids")
    return rows.select(spec.id).join(found, on=spec.id, how="left", maintain_order="left")
