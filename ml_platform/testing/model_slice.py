"""Trains a model on a slice of the sample: few rows, one trial of each family, the engine's own way."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from ml_platform.features.training_sets.build import build_training_set, spine_labels
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.training_sets.spine import spine_text
from ml_platform.lake.query.sql import referenced_tables
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.spec.model import ModelSpec, Tuning
from ml_platform.testing.home import SampleHome
from ml_platform.training.candidate_fit import Fitted, fit_candidate
from ml_platform.training.data.split import Parts, TrainingRows
from ml_platform.training.documents import TrainedModel
from ml_platform.training.fit import fit_model
from ml_platform.training.search import search

ROWS = 6_000  # labelled rows, drawn by a hash of their ids


@dataclass(frozen=True)
class TrainedSlice:
    """A model that was trained on a slice.

    Attributes
    ----------
    trained
        Document of the training; its bundle is in the release store.
    native
        The same model as the libraries that trained it have it.
    parts
        The rows: what it learned from, and the holdout.
    """

    trained: TrainedModel
    native: Fitted
    parts: Parts


def train_slice(spec: ModelSpec, folder: Path, home: SampleHome, store: ReleaseStore) -> TrainedSlice:
    """Train a model on a slice and store its bundle.

    Raises
    ------
    AssertionError
        If it cannot be trained, with the engine's reason.
    """
    home.provide(sorted(referenced_tables(spine_text(spec, folder))))
    for lookup in spec.lookups:
        home.view(lookup.view)
    try:
        sliced = _sliced(spec, folder, home)
        ref = build_training_set(home.lake, sliced, folder, home.views)
        return _train(sliced, folder, home, store, ref)
    except Exception as error:
        raise AssertionError(
            f"model '{spec.name}': wanted it to be trained on a slice of the sample; found {type(error).__name__}: "
            f"{error}"
        ) from error


def _train(spec: ModelSpec, folder: Path, home: SampleHome, store: ReleaseStore, ref: TrainingSetRef) -> TrainedSlice:
    tracker = Tracker(home.settings)
    rows = TrainingRows.read(home.lake, spec, ref)
    candidates = search(rows, spec, tracker=tracker)
    trained = fit_model(rows, spec, candidates, folder=folder, views=home.views, store=store, tracker=tracker)
    before = pl.concat([rows.parts.train, rows.parts.validation])
    native = fit_candidate(spec, ref.features, before, trained.family, trained.params)
    native = replace(native, calibration=store.load_manifest(trained.digest).calibration)
    return TrainedSlice(trained, native, rows.parts)


def _sliced(spec: ModelSpec, folder: Path, home: SampleHome) -> ModelSpec:
    """Make a spec that trains in seconds: fewer rows, one trial, and a split that fits into the sample's days."""
    labels = spine_labels(home.lake, spec, folder).select(
        pl.len().alias("rows"),
        pl.col(spec.label_available_at).min().alias("first"),
        pl.col(spec.label_available_at).max().alias("last"),
    )
    number, first, last = labels.collect().row(0)
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        raise ValueError(f"wanted rows of {spec.spine} with a label, found none in the sample; load more of it")
    days: timedelta = last - first
    split = spec.split.model_copy(
        update={
            "holdout": min(spec.split.holdout, days / 4),
            "validation": min(spec.split.validation, days / 4),
            "gap": min(spec.split.gap, days / 50),
        }
    )
    return spec.model_copy(
        update={
            "sample": min(1.0, ROWS / number),
            "split": split,
            "tuning": Tuning(trials=1, seed=spec.tuning.seed),
        }
    )
