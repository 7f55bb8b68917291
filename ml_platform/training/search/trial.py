"""One trial: a family with parameters, fitted on training rows and measured on the validation rows."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.inference.matrix import FeatureEncoder, encode_labels, label_classes
from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import Parameter
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.threshold import Threshold
from ml_platform.spec.types import Task
from ml_platform.training.candidate_fit import require_classes
from ml_platform.training.data.split import Parts
from ml_platform.training.evaluation.metrics import choose_threshold, measure
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.prior_correction import predict_scores
from ml_platform.training.families.registry import get_family
from ml_platform.training.objective import PLAIN, Objective, weighted_rows

_TRAINING_ROWS_MEASURED = 10_000


@dataclass(frozen=True)
class TrialData:
    """What all trials of a search read."""

    task: Task
    features: tuple[Feature, ...]
    X: np.ndarray
    y: np.ndarray
    X_validation: np.ndarray
    y_validation: np.ndarray
    seed: int
    threshold: Threshold
    objective: Objective = PLAIN

    def sample(self, rows: int) -> tuple[np.ndarray, np.ndarray, Objective]:
        """Draw rows of the training part by the seed, in their order: the same ones for every trial."""
        if rows >= len(self.y):
            return self.X, self.y, self.objective
        chosen = np.sort(np.random.default_rng(0).choice(len(self.y), rows, replace=False))
        weights = self.objective.weights
        objective = replace(self.objective, weights=None if weights is None else weights[chosen])
        return self.X[chosen], self.y[chosen], objective

    def digest(self) -> str:
        """Digest of all that trials read: features in their order, rows, labels, weights and the other objectives."""
        columns = [(feature.name, feature.kind, feature.categories) for feature in self.features]
        digest = hashlib.blake2b(repr(columns).encode(), digest_size=16)
        for array in (self.X, self.y, self.X_validation, self.y_validation):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(self.objective.digest().encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class TrialPlan:
    """One family with one set of parameters, to be fitted on so many of the training rows."""

    family: str
    params: Mapping[str, Parameter]
    rows: int


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial: its metrics on the validation rows, and on some of those that it learned from."""

    params: dict[str, Parameter]
    metrics: dict[str, float]
    threshold: float | None
    seconds: float
    train_metrics: dict[str, float] = field(default_factory=dict)
    curve: tuple[float, ...] = ()


def run_trial(trial: TrialPlan, data: TrialData) -> TrialResult:
    """Train on training rows and measure on the validation rows."""
    started = time.perf_counter()
    family, validation = get_family(trial.family), (data.X_validation, data.y_validation)
    X, y, objective = data.sample(trial.rows)
    estimator = train_estimator(
        family, data.task, data.features, trial.params, data.seed, X, y, validation, objective=objective
    )
    predict = partial(predict_scores, family, estimator, data.task, class_weights=objective.class_weights)
    score = predict(data.X_validation)
    threshold = choose_threshold(data.threshold, data.y_validation, score) if data.task == "binary" else None
    train_metrics: dict[str, float] = {}
    if trial.rows >= len(data.y):
        X, y, _ = data.sample(_TRAINING_ROWS_MEASURED)
        train_metrics = measure(data.task, y, predict(X), threshold=threshold, quantile=objective.quantile)
    return TrialResult(
        params=family.fitted_params(estimator, trial.params),
        metrics=measure(data.task, data.y_validation, score, threshold=threshold, quantile=objective.quantile),
        threshold=threshold,
        seconds=time.perf_counter() - started,
        train_metrics=train_metrics,
        curve=family.learning_curve(estimator),
    )


def trial_data(parts: Parts, spec: ModelSpec, ref: TrainingSetRef) -> TrialData:
    """Encode the training rows (the newest `tuning.sample_rows` of them) and the validation rows."""
    train = weighted_rows(parts.train, spec)
    train = train.tail(spec.tuning.sample_rows) if spec.tuning.sample_rows else train
    classes = label_classes(train.get_column(spec.target)) if spec.task == "multiclass" else ()
    y = encode_labels(train.get_column(spec.target), spec, classes)
    y_validation = encode_labels(parts.validation.get_column(spec.target), spec, classes)
    require_classes(spec, y)
    encoder = FeatureEncoder.fit(train, ref.features, None if spec.task == "multiclass" else y)
    return TrialData(
        task=spec.task,
        features=encoder.features,
        X=encoder.transform(train),
        y=y,
        X_validation=encoder.transform(parts.validation),
        y_validation=y_validation,
        seed=spec.tuning.seed,
        threshold=spec.threshold,
        objective=Objective.of(spec, encoder.features, train, y, classes=classes, validation=parts.validation),
    )
