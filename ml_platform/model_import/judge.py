"""From a model that was read to a version: bound to its folder, compared with its library, judged, registered."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from ml_platform.features.training_sets.build import build_training_set
from ml_platform.governance.audit import record_event
from ml_platform.lake.storage.tables import Lake
from ml_platform.model_import.binding import names_with_blanks
from ml_platform.model_import.claims import Claims, Folder
from ml_platform.model_import.direction import check_direction
from ml_platform.model_import.foreign import ForeignModel
from ml_platform.model_import.library_parity import bind_model, check_answers, check_library_parity
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.source import Source
from ml_platform.model_import.stored_import import store_import
from ml_platform.monitoring.replay.guardrail import replay_guardrail
from ml_platform.promotion.card import write_card
from ml_platform.promotion.declared import DeclaredModel
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.split import Parts, TrainingRows, window
from ml_platform.training.documents import (
    Evaluation,
    RegisteredVersion,
    ReleaseDecision,
    TrainedModel,
)
from ml_platform.training.evaluation.evaluate import evaluate
from ml_platform.training.evaluation.rescoring import VersionRows


@dataclass(frozen=True)
class ImportResult:
    """What an import came to."""

    trained: TrainedModel
    evaluation: Evaluation
    version: RegisteredVersion
    decision: ReleaseDecision
    unexplained: str
    with_blanks: dict[str, str]  # the model's name of an input, with _ for each blank → the feature it was bound to
    threshold: float | None


def import_model(
    settings: Settings, folder: Folder, source: Source, model: ForeignModel, claims: Claims
) -> ImportResult:
    """Make a model that was read a version of a folder's model, and release it if the gate passes it.

    A training set is made as for a training. The graph must give the library's scores on its newest rows and on rows
    made to break it. The gate compares it as any challenger; where it is not known until when it was trained, its
    verdict says so, and a person has to promote it.

    Parameters
    ----------
    settings
        Where lake, registry and releases are.
    folder
        The model that it becomes a version of.
    source, model
        The file, and what was read from it.
    claims
        What who imports it says.

    Raises
    ------
    ImportRefused
        When it cannot become a version; nothing was registered.
    """
    spec, lake, store = folder.spec, Lake(settings.lake_uri), ReleaseStore(settings.releases_dir)
    tracker = Tracker(settings)
    ref = build_training_set(lake, spec, folder.path, folder.views)
    rows = _unseen(TrainingRows.read(lake, spec, ref), spec, claims.trained_until)
    everything = pl.concat([rows.parts.train, rows.parts.validation, rows.parts.holdout])
    imported, refused = bind_model(folder, ref, source, model, claims, everything)
    parity = check_library_parity(imported, claims, everything, refused)
    check_answers(imported, rows.parts.holdout)
    check_direction(imported, model, claims, rows.parts.holdout)
    trained = store_import(folder, rows, source, model, claims, imported, parity, store=store, tracker=tracker)
    declared = DeclaredModel(spec, folder.path, folder.views)
    evaluation = evaluate(
        rows,
        spec,
        trained,
        store,
        VersionRows(lake, spec, folder.path, folder.views),
        further=lambda: replay_guardrail(lake, store, declared, trained.digest, tracker=tracker),
    )
    evaluation = _with_doubt(evaluation, claims.trained_until)
    record_event(
        settings.audit_dir,
        settings.keys_dir,
        "model import",
        f"{spec.name}: {source.uri} (SHA-256 {source.digest}, {source.kind.name}"
        f"{', trusted' if source.kind.runs_code else ''}) as bundle {trained.digest[:12]}",
        by=claims.by,
    )
    version = register(spec, trained, evaluation, tracker=tracker)
    write_card(spec, folder.path, trained, evaluation, version, tracker=tracker)
    decision = promote(settings, spec, version, evaluation, tracker=tracker, by=claims.by)
    with_blanks = (
        names_with_blanks(model.inputs, [one.name for one in imported.encoder.features])
        if model.blanks_replaced
        else {}
    )
    return ImportResult(
        trained, evaluation, version, decision, imported.bound.unexplained, with_blanks, trained.threshold
    )


def _unseen(rows: TrainingRows, spec: ModelSpec, trained_until: datetime | None) -> TrainingRows:
    """The training set with the holdout rows that the model cannot have learned from."""
    if trained_until is None:
        return rows
    parts = rows.parts
    later = parts.holdout.filter(pl.col(spec.timestamp) > trained_until)
    if later.is_empty():
        raise ImportRefused(
            f"no row of the holdout ({parts.bounds.holdout.first:%Y-%m-%d %H:%M} to "
            f"{parts.bounds.holdout.last:%Y-%m-%d %H:%M} "
            f"UTC) is later than --trained-until {trained_until:%Y-%m-%d %H:%M}: load newer rows, then import it again"
        )
    bounds = parts.bounds.model_copy(update={"holdout": window(later, spec)})
    return TrainingRows(rows.ref, Parts(parts.train, parts.validation, later, bounds))


def _with_doubt(evaluation: Evaluation, trained_until: datetime | None) -> Evaluation:
    """The verdict, with what is not known of the model's training: where that could flatter it, a person decides."""
    if trained_until is not None:
        stated = (
            "It was trained elsewhere; who imported it says on no row later than "
            f"{trained_until:%Y-%m-%d %H:%M} UTC, which cannot be checked here."
        )
        return evaluation.model_copy(update={"reasons": (*evaluation.reasons, stated)})
    doubt = (
        "Do not promote by itself: it was trained elsewhere, on rows that are not known here, and may have seen the "
        "holdout rows, on which it then looks better than it is. Import it with --trained-until, or promote this "
        "version by name."
    )
    return evaluation.model_copy(update={"promote": False, "reasons": (doubt, *evaluation.reasons)})
