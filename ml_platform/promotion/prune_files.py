"""Files beside bundles and runs that nothing needs: AutoML's folders, studies of searches, adapted intervals."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ml_platform.atomic_files import try_lock
from ml_platform.promotion.prune_item import PruneItem, Retention
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings

_STUDIES = ".journal"
_LEADERBOARD = "leaderboard.json"  # with it a run of AutoML is whole


def file_items(settings: Settings, retention: Retention, model: str | None = None) -> Iterator[PruneItem]:
    """Each of these, with why it stays; those of one model, or of an AutoML run of that name, or all."""
    yield from _automl(settings.home / "automl", retention, model)
    yield from _studies(settings.studies_dir, retention, model)
    if model is None:
        yield from _intervals(ReleaseStore(settings.releases_dir))


def remove_file(settings: Settings, item: PruneItem) -> bool:
    """Remove one of these; False where something needs it by now, or it is gone."""
    if item.kind == "automl":
        folder = settings.home / "automl" / item.model / item.name
        if not folder.is_dir():
            return False
        (folder / _LEADERBOARD).unlink(missing_ok=True)  # first: half of a run is none
        shutil.rmtree(folder, ignore_errors=True)
        return True
    if item.kind == "study":
        path = settings.studies_dir / item.model / f"{item.name}{_STUDIES}"
        return _unheld(path, remove=True)
    store = ReleaseStore(settings.releases_dir)
    path = store.folder / "conformal" / f"{item.name}.json"
    if store.bundle_path(item.name).is_dir() or not path.is_file():
        return False
    path.unlink(missing_ok=True)
    return True


def _automl(folder: Path, retention: Retention, model: str | None) -> Iterator[PruneItem]:
    for name in sorted(path for path in folder.glob("[!.]*") if path.is_dir() and model in (None, path.name)):
        runs = sorted(path for path in name.iterdir() if path.is_dir())
        whole = [run for run in runs if (run / _LEADERBOARD).is_file()]
        for run in runs:
            files = [path for path in run.rglob("*") if path.is_file()]
            keep = _young(max((path.stat().st_mtime for path in files), default=run.stat().st_mtime), retention)
            if not keep and run in whole[-1:]:
                keep = "the newest of its name: `ml-platform automl` shows and adopts it"
            size = sum(path.stat().st_size for path in files)
            yield PruneItem("automl", run.name, name.name, "leaderboard, notebooks and plots", size, keep)


def _studies(folder: Path, retention: Retention, model: str | None) -> Iterator[PruneItem]:
    for path in sorted(folder.glob(f"*/*{_STUDIES}")):
        if model in (None, path.parent.name):
            found = path.stat()
            keep = _young(found.st_mtime, retention) or ("" if _unheld(path) else "a search goes on with it")
            yield PruneItem("study", path.stem, path.parent.name, "trials of a search", found.st_size, keep)


def _intervals(store: ReleaseStore) -> Iterator[PruneItem]:
    for path in sorted((store.folder / "conformal").glob("*.json")):
        keep = "its bundle is there" if store.bundle_path(path.stem).is_dir() else ""
        yield PruneItem("intervals", path.stem, "", "adapted intervals of a bundle", path.stat().st_size, keep)


def _young(changed: float, retention: Retention) -> str:
    age: timedelta = datetime.now(UTC) - datetime.fromtimestamp(changed, UTC)
    return f"younger than {retention.younger_than.days} days" if age < retention.younger_than else ""


def _unheld(path: Path, *, remove: bool = False) -> bool:
    """Whether no process holds a study; and its removal, while none can."""
    try:
        with path.open("rb") as file:
            free = try_lock(file.fileno())
            if free and remove:
                path.unlink(missing_ok=True)
            return free
    except FileNotFoundError:
        return not remove
