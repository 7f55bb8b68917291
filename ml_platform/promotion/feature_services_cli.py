"""`ml-platform features services`, `publish` and `withdraw`: which features are given out under one name."""

from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.governance.access.publish_protections import publish_if_governed
from ml_platform.project import current_project
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    from ml_platform.registry.feature_services import FeatureService, FeatureServiceStore


def services() -> None:
    """List the feature services: declared ones, and what is published of them."""
    declared, store = _declared(), _store()
    published = {name: _published(store, name) for name in store.names()}
    for name in sorted({*declared, *published}):
        service = published.get(name)
        if service is None:
            state = "damaged; publish it again" if name in published else "not published yet"
        else:
            state = f"revision {service.revision}, published {service.published_at:%Y-%m-%d %H:%M} UTC"
            if name not in declared:
                state += "; no longer declared: withdraw it, or declare it again"
            elif declared[name].digest != service.digest:
                state += "; declared differently now: publish it again"
        views = (service or declared[name]).views if service or name in declared else ()
        say(f"{name}: {', '.join(one.name for one in views)}; {state}")
    if not declared and not published:
        say("There are no feature services yet: a defs.yaml of the type …orchestration.FeatureService declares one")


def publish(
    name: Annotated[str | None, typer.Argument(help="Name of a declared service; all of them by default.")] = None,
) -> None:
    """Publish feature services as they are declared now; servers take them within a second.

    Dagster does it by the asset `feature_services/<name>`.
    """
    declared, by = _declared(), _promoter()
    if name is not None and name not in declared:
        stop(f"No feature service '{name}' is declared; there are: {', '.join(sorted(declared)) or 'none'}")
    store = _store()
    for service in [declared[name]] if name is not None else declared.values():
        before = _published(store, service.name)
        published = store.publish(service, by=by)
        changed = before is None or before.revision != published.revision
        say(f"{service.name}: {'' if changed else 'already '}revision {published.revision}")
    publish_if_governed(Settings())


def withdraw(name: Annotated[str, typer.Argument(help="Name of a published service.")]) -> None:
    """Take a feature service out of service; its revisions stay in the release store's history."""
    _promoter()
    store = _store()
    if name not in store.names() or not store.withdraw(name):
        stop(f"No feature service '{name}' is published; there are: {', '.join(store.names()) or 'none'}")
    say(f"{name}: withdrawn")


def _promoter() -> str:
    try:
        return promoter(Settings())
    except MayNotPromote as error:
        stop(str(error))


def _store() -> "FeatureServiceStore":
    from ml_platform.registry.feature_services import FeatureServiceStore
    from ml_platform.registry.releases import ReleaseStore

    return FeatureServiceStore(ReleaseStore(Settings().releases_dir))


def _published(store: "FeatureServiceStore", name: str) -> "FeatureService | None":
    try:
        return store.read(name)
    except ValueError:  # damaged, as the list says; publishing mends it
        return None


def _declared() -> "dict[str, FeatureService]":
    from ml_platform.features.services.declare import service_document
    from ml_platform.features.views.load import load_views
    from ml_platform.spec_yaml import check_services

    defs = current_project().defs
    views = load_views(defs / "features")
    found = check_services(defs, {name: view.columns.keys() for name, view in views.items()})
    try:
        return {spec.name: service_document(spec, path.parent, views) for path, spec in found}
    except ValueError as error:
        stop(str(error))
