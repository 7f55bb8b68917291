"""A model as the project declares it now, found by its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import check_project
from ml_platform.yaml_documents import unknown


@dataclass(frozen=True)
class DeclaredModel:
    """Its spec, the folder with its files, and the project's feature views by name."""

    spec: ModelSpec
    folder: Path
    views: Mapping[str, FeatureView]


def declared_model(defs: Path, model: str) -> DeclaredModel:
    """Find a model among the project's definitions.

    Raises
    ------
    LookupError
        When no `defs.yaml` declares it, with the nearest name.
    SpecError, ValueError
        When a definition is wrong.
    """
    views = load_views(defs / "features")
    columns = {name: view.columns.keys() for name, view in views.items()}
    specs = {spec.name: (spec, path) for path, spec in check_project(defs, columns).items()}
    if model not in specs:
        raise LookupError(unknown(model, specs, what="model"))
    spec, path = specs[model]
    return DeclaredModel(spec, path.parent, views)
