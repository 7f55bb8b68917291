"""A version that differs from the one that serves in its calibration alone: bundled, checked and registered."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ml_platform.inference.calibration import calibrated
from ml_platform.inference.scorer import Scorer
from ml_platform.monitoring.recalibration.judge import Judgement
from ml_platform.promotion.reconcile import versions_of
from ml_platform.promotion.versions import set_release_policies, settle_registration
from ml_platform.registry.digests import model_digest
from ml_platform.registry.logged_model import log_model
from ml_platform.registry.manifest import Calibration, Conformal, Golden, Manifest, Recalibrated, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import document_bytes
from ml_platform.registry.tracking import Tracker
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import ParityReport, RegisteredVersion
from ml_platform.training.evaluation.calibration import reliability_of
from ml_platform.training.export.calibrated_graph import calibrate_graph, check_calibrated, uncalibrated_graph
from ml_platform.training.uncertainty.calibrate import in_words
from ml_platform.training.uncertainty.platt import compose

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class LightVersion:
    """A registered version with another calibration."""

    version: RegisteredVersion
    manifest: Manifest
    scorer: Scorer
    parity: ParityReport


def register_recalibrated(
    spec: ModelSpec,
    champion: Target,
    judgement: Judgement,
    conformal: Conformal | None,
    *,
    store: ReleaseStore,
    tracker: Tracker,
    by: str,
) -> LightVersion:
    """Bundle the champion with another calibration, and register it, once however often this is repeated.

    Parameters
    ----------
    spec
        The model.
    champion
        What serves.
    judgement
        The calibration of the champion's scores, and what was found of it.
    conformal
        What intervals or sets of its probabilities are made of.
    store, tracker
        Where bundles and versions are.
    by
        Who does it, for the ledger.

    Raises
    ------
    ParityError
        When the new graph does not give the champion's scores, calibrated anew.
    BundleRefused
        When a bundle is damaged, or the new one does not give its golden rows.
    """
    set_release_policies(tracker.settings, spec, by=by)
    files = store.read_bundle(champion.digest)
    before = store.load_manifest(champion.digest)
    without = uncalibrated_graph(files["model.onnx"])
    calibration = compose(before.calibration, judgement.calibration)
    onnx = calibrate_graph(without, spec.task, calibration)
    golden = msgspec.json.decode(files["golden.json"], type=Golden)
    matrix = np.array(
        [[np.nan if value is None else value for value in row] for row in golden.matrix], dtype=np.float64
    )
    parity = check_calibrated(onnx, without, calibration, spec.task, before.features, matrix)
    manifest = _manifest(spec, before, champion, calibration, conformal, judgement)
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(onnx, manifest))
    entry = _registered_already(tracker, spec.name, manifest, store)
    if entry is None:
        scores = calibrated(judgement.calibration, np.array(golden.scores))
        digest = store.put_bundle(
            {
                "manifest.json": document_bytes(manifest),
                "model.onnx": onnx,
                "golden.json": msgspec.json.format(
                    msgspec.json.encode(msgspec.structs.replace(golden, scores=tuple(scores.tolist()))), indent=1
                ),
            }
        )
        scorer = Scorer.load(store.bundle_path(digest))
        entry = _register(spec, champion, judgement, manifest, digest, onnx, matrix, tracker=tracker)
    else:
        scorer = Scorer.load(store.bundle_path(entry.tags["bundle_digest"]))
    return LightVersion(settle_registration(tracker, entry, by=by), scorer.manifest, scorer, parity)


def _manifest(  # noqa: PLR0917 - private
    spec: ModelSpec,
    before: Manifest,
    champion: Target,
    calibration: Calibration,
    conformal: Conformal | None,
    judgement: Judgement,
) -> Manifest:
    base = before.recalibrated or Recalibrated(
        base_version=champion.version, base_digest=champion.digest, replaced_version=0, replaced_digest=""
    )
    if conformal is not None:  # what was counted so far is of the scores before
        conformal = msgspec.structs.replace(conformal, coverage=None, width=None)
    return msgspec.structs.replace(
        before,
        calibration=calibration,
        reliability=reliability_of(spec.task, judgement.y, judgement.scores[1]),
        conformal=conformal or before.conformal,
        recalibrated=msgspec.structs.replace(base, replaced_version=champion.version, replaced_digest=champion.digest),
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def _registered_already(tracker: Tracker, model: str, manifest: Manifest, store: ReleaseStore) -> "ModelVersion | None":
    """The version that is this one, where what made it was cut short and is repeated."""
    assert manifest.recalibrated is not None
    wanted = (manifest.model_digest, manifest.recalibrated.replaced_digest)
    for entry in versions_of(tracker, model):
        digests = (entry.tags.get("model_digest"), entry.tags.get("recalibrated_digest"))
        if digests == wanted and store.bundle_path(entry.tags["bundle_digest"]).is_dir():
            return entry
    return None


def _register(  # noqa: PLR0917 - private
    spec: ModelSpec,
    champion: Target,
    judgement: Judgement,
    manifest: Manifest,
    digest: str,
    onnx: bytes,
    matrix: np.ndarray,
    *,
    tracker: Tracker,
) -> "ModelVersion":
    entries = {int(entry.version): entry for entry in versions_of(tracker, spec.name)}
    known = dict(entries[champion.version].tags) if champion.version in entries else {}
    recalibrated, calibration = manifest.recalibrated, manifest.calibration
    assert recalibrated is not None
    assert calibration is not None
    numbers = {
        "log_loss": judgement.log_loss[1],
        "log_loss_before": judgement.log_loss[0],
        "calibration_error": judgement.error[1],
        "calibration_error_before": judgement.error[0],
    }
    tags = {"stage": "recalibration", "recalibrated_version": str(champion.version), "bundle_digest": digest}
    with tracker.run(spec.name, "recalibrate", tags={**tags, "model_digest": manifest.model_digest}) as run_id:
        tracker.log(
            run_id,
            params={"slope": calibration.slope, "shifts": calibration.shifts, "rows": calibration.rows},
            metrics=numbers,
        )
        model_uri = log_model(tracker, run_id, onnx, manifest, example=matrix)
    return tracker.client.create_model_version(
        spec.name,
        source=model_uri,
        run_id=run_id,
        model_id=model_uri.removeprefix("models:/"),
        tags={
            **known,
            "gate": "passed",
            "bundle_digest": digest,
            "judged_digest": digest,
            "model_digest": manifest.model_digest,
            "recalibrated_version": str(champion.version),
            "recalibrated_digest": champion.digest,
            "base_version": str(recalibrated.base_version),
        },
        description="\n\n".join(
            [
                spec.description.strip(),
                f"Version {recalibrated.base_version} with other probabilities: only its calibration was learned "
                f"anew, nothing was trained. It is to take the place of version {champion.version}.",
                in_words(calibration),
                *judgement.reasons,
            ]
        ),
    )
