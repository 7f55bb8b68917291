"""The released versions of a model as monitoring needs them: the champion, and its scores of recorded rows."""

from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.inference.matrix import FeatureEncoder, feature_columns
from ml_platform.inference.recorded_columns import of_features
from ml_platform.registry.manifest import Manifest, Target, champion_target
from ml_platform.registry.releases import ReleaseStore

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer


def get_champion(store: ReleaseStore, model: str) -> tuple[Target, Manifest]:
    """Return the champion of a model and its manifest.

    Raises
    ------
    LookupError
        Before a first release.
    """
    endpoint = store.endpoint(model)
    if endpoint is None:
        raise LookupError(
            f"Wanted the released version of '{model}', found none in {store.folder}. Materialise its `release` first."
        )
    champion = champion_target(endpoint)
    return champion, store.load_manifest(champion.digest)


def released_digests(store: ReleaseStore, model: str) -> dict[int, str]:
    """Bundle of every version that was ever released and is still in the store."""
    digests = {target.version: target.digest for document in store.history(model) for target in document.targets}
    return {version: digest for version, digest in digests.items() if store.bundle_path(digest).is_dir()}


def load_scorer(store: ReleaseStore, digest: str) -> "Scorer":
    """Load a bundle of the store (raises BundleRefused when it is damaged)."""
    from ml_platform.inference.scorer import Scorer  # ONNX Runtime: not while Dagster loads

    return Scorer.load(store.bundle_path(digest))


def rescore(scorer: "Scorer", rows: pl.DataFrame) -> Any:
    """Score rows by the features that were recorded with them.

    Returns
    -------
    numpy.ndarray
        (rows,) or, for multiclass, (rows × classes). A feature that was not recorded counts as missing.
    """
    features = scorer.manifest.features
    rows = of_features(rows, features)
    absent = [pl.lit(None).alias(feature.name) for feature in features if feature.name not in rows.columns]
    return scorer.score(FeatureEncoder(features).transform(feature_columns(rows.with_columns(absent), features)))
