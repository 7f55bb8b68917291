"""Prunes what nothing needs any more: bundles, MLflow runs with their files, and files beside them; planned first."""

from collections.abc import Sequence

from ml_platform.governance.audit import record_event
from ml_platform.promotion.pinned import Pins
from ml_platform.promotion.prune_bundles import bundle_items, finish_removals, remove_bundle
from ml_platform.promotion.prune_files import file_items, remove_file
from ml_platform.promotion.prune_item import PruneItem, Retention
from ml_platform.promotion.prune_runs import finish_runs, remove_run, run_items
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings


def plan_prune(settings: Settings, retention: Retention, model: str | None = None) -> list[PruneItem]:
    """Say of every bundle, run and file beside them whether it may go, or why it stays; changes nothing.

    Parameters
    ----------
    settings
        Where release store and MLflow are.
    retention
        What stays.
    model
        Whose; of all when None.

    Raises
    ------
    LookupError
        When there is no such model.
    DocumentUnreadable
        When a document of the release store is damaged.
    """
    store, tracker = ReleaseStore(settings.releases_dir), Tracker(settings)
    if model is not None and tracker.client.get_experiment_by_name(model) is None:
        store.check_version(model)
    return [
        *bundle_items(store, retention, model, pins=Pins(settings)),
        *run_items(tracker, retention, model),
        *file_items(settings, retention, model),
    ]


def prune(settings: Settings, items: Sequence[PruneItem], *, by: str, reason: str) -> int:
    """Remove what a plan lets go, and finish what a killed pruning has left; returns the bytes that were freed.

    A bundle that serves by now stays. A registered version that loses its bundle stays registered, and says so.

    Parameters
    ----------
    settings
        Where release store and MLflow are.
    items
        The plan.
    by, reason
        For the audit log, and for versions without a bundle.
    """
    store, tracker = ReleaseStore(settings.releases_dir), Tracker(settings)
    freed = finish_removals(store) + finish_runs(tracker)
    for item in items:
        if item.keep:
            continue
        record_event(settings.audit_dir, settings.keys_dir, "pruned", f"{item.kind} {item.name}, {item.about}", by=by)
        if item.kind == "run":
            remove_run(tracker, item.name, by=by)
        elif item.kind != "bundle":
            if not remove_file(settings, item):
                continue
        elif not remove_bundle(store, item, by=by, reason=reason):
            continue
        freed += item.size
    return freed
