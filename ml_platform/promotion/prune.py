"""Prunes what nothing needs any more: bundles, MLflow runs with their files, and files beside them; planned first."""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_platform.atomic_files import locked
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


@dataclass(frozen=True)
class PruneOutcome:
    """What a pruning has removed: how many of its items, and all bytes, those that a killed one had left too."""

    items: int
    size: int


def prune(settings: Settings, items: Sequence[PruneItem], *, by: str, reason: str) -> PruneOutcome:
    """Remove what a plan lets go, and finish what a killed pruning has left.

    A bundle that serves by now stays, and what another pruning has removed meanwhile is passed over: one at a time
    removes. A registered version that loses its bundle stays registered, and says so.

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
    removed = 0
    with locked(settings.home / "prune.lock"):
        freed = finish_removals(store) + finish_runs(tracker)
        for item in items:
            if item.keep:
                continue
            what = f"{item.kind} {item.name}, {item.about}"
            record_event(settings.audit_dir, settings.keys_dir, "pruned", what, by=by)
            if _removed(settings, store, tracker, item, by=by, reason=reason):
                removed += 1
                freed += item.size
    return PruneOutcome(removed, freed)


def _removed(
    settings: Settings, store: ReleaseStore, tracker: Tracker, item: PruneItem, *, by: str, reason: str
) -> bool:
    if item.kind == "run":
        return remove_run(tracker, item.name, by=by)
    if item.kind == "bundle":
        return remove_bundle(store, item, by=by, reason=reason)
    return remove_file(settings, item)
