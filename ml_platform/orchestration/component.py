"""The components of `defs.yaml`: a raw table, feature views, a feature service, one model, several at one endpoint."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import BaseModel

from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.orchestration.catalogue_asset import catalogue_asset
from ml_platform.orchestration.composed_asset import composed_assets
from ml_platform.orchestration.feature_assets import feature_view_defs
from ml_platform.orchestration.feature_service_asset import feature_service_asset
from ml_platform.orchestration.model_defs import build_model_defs
from ml_platform.orchestration.push_assets import push_defs
from ml_platform.orchestration.scaffold import TabularModelScaffolder
from ml_platform.orchestration.source_assets import source_table_defs
from ml_platform.orchestration.source_scaffold import SourceTableScaffolder
from ml_platform.orchestration.stream_assets import stream_defs
from ml_platform.spec.composition import ComposedEndpointSpec
from ml_platform.spec.feature_service import FeatureServiceSpec
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import load_composed, load_service, load_spec

FEATURES_FOLDER = "features"


@lru_cache(maxsize=8)
def project_views(defs: Path) -> Mapping[str, FeatureView]:
    """Read the feature views of a project: the files in `features/` below its defs folder."""
    return load_views(defs / FEATURES_FOLDER)


class FeatureViews(dg.Component, dg.Model, dg.Resolvable):
    """Every `*.sql`, `*.yaml` and `*.py` beside this file is a feature view: its tables, online values and checks."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the assets of all views in the folder, and their catalogue."""
        views = project_views(context.path.parent)
        if not views:
            return dg.Definitions()
        catalogue = dg.Definitions(assets=[catalogue_asset(views, context.path.parent)])
        pushes = push_defs(list(views.values()))
        streams = stream_defs(views)
        return dg.Definitions.merge(*map(feature_view_defs, views.values()), pushes, streams, catalogue)


@dg.scaffold_with(SourceTableScaffolder)
class SourceTable(dg.Component):
    """A raw table from a file, a folder that grows or a PostgreSQL database, with its contract.

    The attributes are those of `ml_platform.lake.sources.source_spec.SourceSpec`.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Give the schema of `attributes`."""
        return SourceSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:  # noqa: ARG003
        """Take the spec that Dagster has validated."""
        return cls(SourceSpec.model_validate(attributes.model_dump() if attributes else {}))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """Build the asset, and the sensor or schedule that loads it."""
        return source_table_defs(self.spec)


class FeatureService(dg.Component):
    """Features of some views under one name, for applications and for models elsewhere.

    The attributes are those of `ml_platform.spec.feature_service.FeatureServiceSpec`.
    """

    def __init__(self, spec: FeatureServiceSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Give the schema of `attributes`."""
        return FeatureServiceSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:  # noqa: ARG003
        """Read the file once more, with its lines: views and features are checked against the project's."""
        views = {name: view.columns.keys() for name, view in project_views(context.path.parent).items()}
        return cls(load_service(context.path / "defs.yaml", views))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the asset that publishes the service."""
        views = project_views(context.path.parent)
        return dg.Definitions(assets=[feature_service_asset(self.spec, context.path, views)])


@dg.scaffold_with(TabularModelScaffolder)
class TabularModel(dg.Component):
    """A model on tabular data: training set, search, evaluation, gated release, scoring, monitoring, retraining.

    The attributes are those of `ml_platform.spec.model.ModelSpec`.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Give the schema of `attributes`."""
        return ModelSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:  # noqa: ARG003
        """Read the file once more, with its lines: look-ups are checked against the project's feature views."""
        path = context.path / "defs.yaml"
        views = {name: view.columns.keys() for name, view in project_views(context.path.parent).items()}
        return cls(load_spec(path, views))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the model's assets, checks, jobs, sensors and schedules."""
        return build_model_defs(self.spec, context.path, project_views(context.path.parent))


class ComposedEndpoint(dg.Component):
    """An endpoint at which several released models answer together: an ensemble, a pipeline, or one for each segment.

    The attributes are those of `ml_platform.spec.composition.ComposedEndpointSpec`.
    """

    def __init__(self, spec: ComposedEndpointSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Give the schema of `attributes`."""
        return ComposedEndpointSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:  # noqa: ARG003
        """Read the file once more, with its lines."""
        return cls(load_composed(context.path / "defs.yaml"))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """Build the assets that publish it and keep its log."""
        return dg.Definitions(assets=composed_assets(self.spec))
