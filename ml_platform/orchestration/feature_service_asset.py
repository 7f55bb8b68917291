"""One asset per feature service: its published document, which serving reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from ml_platform.features.services.declare import service_document
from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.resources import Platform
from ml_platform.spec.feature_service import FeatureServiceSpec


def feature_service_asset(
    spec: FeatureServiceSpec, folder: Path, views: Mapping[str, FeatureView]
) -> dg.AssetsDefinition:
    """Build `feature_services/<name>`, which is published again when its declaration or a view's definition changes."""
    document = service_document(spec, folder, views)
    due: dg.AutomationCondition[Any] = dg.AutomationCondition.on_missing()
    due |= dg.AutomationCondition.code_version_changed()  # values that change need no new document

    @dg.asset(
        key=["feature_services", spec.name],
        deps=list(dict.fromkeys(dg.AssetKey(["online", one.view]) for one in document.views)),
        description=(
            f"{spec.description}\n\nFeatures of {', '.join(one.name for one in document.views)} under one name: "
            f"`POST /features/{spec.name}/lookup`."
        ),
        group_name="online",
        kinds={"fastapi"},
        owners=[spec.owner],
        tags=dict(spec.tags),
        code_version=document.digest[:12],
        automation_condition=due,
    )
    def feature_service(platform: Platform) -> dg.MaterializeResult:
        from ml_platform.governance.access.publish_protections import publish_if_governed
        from ml_platform.registry.feature_services import FeatureServiceStore
        from ml_platform.registry.releases import ReleaseStore

        store = FeatureServiceStore(ReleaseStore(platform.settings.releases_dir))
        published = store.publish(document, by="dagster")
        publish_if_governed(platform.settings)
        return dg.MaterializeResult(
            metadata={
                "revision": published.revision,
                "features": sum(len(one.features) for one in published.views),
                "definitions": {one.view: one.view_hash[:12] for one in published.views},
                "request features": ", ".join(one.name for one in published.derived) or "none",
                "published": str(published.published_at),
            },
            data_version=dg.DataVersion(f"{published.digest[:12]}.{published.revision}"),
        )

    return feature_service
