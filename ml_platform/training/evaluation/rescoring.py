"""Rows of a training set as another version reads them, which may define the same features otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ml_platform.features.training_sets.build import feature_rows_by_id
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions, unlike_features
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Manifest
from ml_platform.spec.model import ModelSpec


class NotRescorable(ValueError):
    """The rows are not all there for a version to be given its own features of them."""


@dataclass(frozen=True)
class VersionRows:
    """Where the rows of a model come from: what a version needs to be given its own features of them."""

    lake: Lake
    spec: ModelSpec
    folder: Path
    views: Mapping[str, FeatureView]

    def of(
        self, version: Manifest, rows: pl.DataFrame, *, tables: Mapping[str, int], made_for: Manifest
    ) -> pl.DataFrame:
        """Give rows of a training set the features that a version reads, by its own definitions, in the same order.

        The spine and the views are read as they were when the set was made. Where both versions make all features
        alike, the rows are returned as they are.

        Parameters
        ----------
        version
            Manifest of the version that is to score the rows.
        rows
            Rows of the training set.
        tables
            Tables that the set was made from, with the version read of each.
        made_for
            Manifest of a version that was trained on the set.

        Raises
        ------
        ViewChanged
            When a view that the version looks up is gone or has another definition now.
        ValueError
            When the spine no longer gives one of its inputs (`NotRescorable`: one of the rows).
        """
        if rows.is_empty() or not unlike_features(version, made_for):
            return rows
        spec = self.spec
        definitions = FeatureDefinitions.of_version(version, spec, self.views)
        ids = rows.get_column(spec.id)
        found = feature_rows_by_id(self.lake, spec, self.folder, self.views, definitions, ids, versions=tables)
        if lost := rows.height - found.height:
            raise NotRescorable(f"{spec.spine} no longer gives {lost} of {rows.height} rows of the training set")
        return rows.select(spec.id).join(found, on=spec.id, how="left", maintain_order="left")
