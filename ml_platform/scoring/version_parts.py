"""What a version needs beside its bundle to score a frame: rows of the views it looks up, numbers for intervals."""

from collections.abc import Callable, Mapping

from ml_platform.features.online.pushed_rows import view_tables
from ml_platform.features.point_in_time.lookup_index import LookupIndex
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.intervals import HIGHEST, LOWEST
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.adapted_conformal import load_adapted
from ml_platform.registry.manifest import Conformal, Manifest, Target
from ml_platform.registry.releases import ReleaseStore


def conformal_of(store: ReleaseStore, manifest: Manifest, version: Target, level: float) -> Conformal:
    """What intervals of a level are made of: numbers that follow labels, else the manifest's (raises ValueError)."""
    if not LOWEST <= level <= HIGHEST:
        raise ValueError(f"interval: wanted a level from {LOWEST} to {HIGHEST}, found {level:g}")
    adapted = load_adapted(store, version.digest)
    conformal = manifest.conformal if adapted is None else adapted.conformal
    if conformal is None:
        raise ValueError(
            f"{manifest.model} version {version.version} has no numbers for intervals: leave the interval out, train a "
            "version on 100 holdout rows or more, or run ml-platform recalibrate as labels come"
        )
    return conformal


def view_pins(
    lake: Lake, manifest: Manifest, views: Callable[[], Mapping[str, FeatureView]]
) -> tuple[dict[str, int], Mapping[str, FeatureView]]:
    """Versions of the tables that the look-ups read, and the views."""
    if not manifest.lookups:
        return {}, {}
    known = views()
    names = {lookup.view for lookup in manifest.lookups} & known.keys()
    tables = sorted({table for name in names for table in view_tables(lake, known[name])})
    return lake.versions(tables), known


def lookup_indexes(
    lake: Lake,
    manifest: Manifest,
    views: Mapping[str, FeatureView],
    pins: Mapping[str, int],
    which: str,
) -> list[LookupIndex]:
    """Make the index of each look-up, from the pinned versions of the views' tables."""
    if not manifest.lookups:
        return []
    definitions = FeatureDefinitions.of_manifest(manifest, views, timestamp="")  # which look-ups do not need
    index = LookupIndex.newest if which == "latest" else LookupIndex.point_in_time
    return [index(one) for one in definitions.resolve(lake, views, pins)]
