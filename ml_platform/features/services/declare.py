"""Turns a declared feature service into the document that serving reads."""

from collections.abc import Mapping
from pathlib import Path

from ml_platform.features.expressions.manifest_fields import manifest_features, manifest_input
from ml_platform.features.expressions.request_features import load_request_features
from ml_platform.features.views.view import FeatureView
from ml_platform.registry.feature_services import FeatureService, ServedView
from ml_platform.spec.feature_service import FeatureServiceSpec, ServiceView


def service_document(spec: FeatureServiceSpec, folder: Path, views: Mapping[str, FeatureView]) -> FeatureService:
    """Make the document of a service, with the definitions of its views as they are now.

    Parameters
    ----------
    spec
        The declaration.
    folder
        Folder of its `defs.yaml`, beside which its request features are.
    views
        The project's views by name.

    Raises
    ------
    ValueError
        When a view, feature, entity column or file does not exist, or a name stands for two things.
    """
    request = load_request_features(folder / spec.request_features) if spec.request_features else {}
    served = tuple(_served(spec, one, views) for one in spec.views)
    inputs = tuple(manifest_input(field) for field in spec.inputs)
    names = [*(field.name for field in inputs), *request]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"feature service '{spec.name}': {twice} are inputs and request features; rename one")
    columns = {f"{one.name}__{feature}" for one in served for feature in one.features}
    if twice := sorted(columns & set(request)):
        raise ValueError(f"feature service '{spec.name}': {twice} are features of views and of the request; rename one")
    return FeatureService(
        name=spec.name,
        description=spec.description,
        owner=spec.owner,
        views=served,
        inputs=inputs,
        derived=manifest_features(spec.inputs, request),
        pinned=spec.pinned,
        tags=dict(spec.tags),
    )


def _served(spec: FeatureServiceSpec, one: ServiceView, views: Mapping[str, FeatureView]) -> ServedView:
    where = f"feature service '{spec.name}'"
    view = views.get(one.view)
    if view is None:
        raise ValueError(f"{where}: no feature view '{one.view}'; there are: {', '.join(views) or 'none'}")
    if unknown := sorted(set(one.features) - set(view.columns)):
        raise ValueError(f"{where}: view '{view.name}' has no feature {unknown}; it has {sorted(view.columns)}")
    if unknown := sorted(set(one.keys) - set(view.entity)):
        raise ValueError(
            f"{where}: keys {unknown} are no entity columns of '{view.name}'; those are {list(view.entity)}"
        )
    return ServedView(
        name=one.alias,
        view=view.name,
        view_hash=view.hash,
        keys={column: one.keys.get(column, column) for column in view.entity},
        features=one.features or tuple(view.columns),
        ttl_seconds=view.ttl.total_seconds() if view.ttl else None,
    )
