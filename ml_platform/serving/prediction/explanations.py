"""Adds to predictions, on request, the features that the model saw and what each added to the score."""

from typing import Any

import numpy as np

from ml_platform.inference.explain import describe
from ml_platform.inference.explainer import Explainer
from ml_platform.inference.missing_values import infinite_as_missing
from ml_platform.registry.composition import Ensemble, Pipeline
from ml_platform.registry.manifest import Manifest
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.models.composed import ComposedModel
from ml_platform.serving.models.slots import ServedModel
from ml_platform.serving.prediction.score_rows import Scored

MAX_EXPLAINED = 100  # rows of one request; each takes some milliseconds for a large ensemble

_RAW = {"binary": "log-odds", "multiclass": "log-probability, up to a constant of the row"}


def add_details(model: ServedModel, scored: Scored, *, explain: bool, features: bool) -> None:
    """Put `features` and `explanation` into every prediction.

    Raises
    ------
    Refused
        When the version's graph has no explanations.
    """
    rows = scored.features()
    if features:
        for prediction, row in zip(scored.predictions, rows, strict=True):
            prediction.features = row
    if explain:
        explainer = model.scorer.explainer()
        if explainer is None:
            raise Refused(422, "not_explainable", why_not_explained(model.manifest, model.version))
        matrix = model.scorer.encode(rows) if scored.matrix is None else scored.matrix
        for prediction, explanation in zip(scored.predictions, _explain(model, explainer, matrix), strict=True):
            prediction.explanation = explanation


def why_not_explained(manifest: Manifest, version: int) -> str:
    """Say why the scores of a version are not explained, and what would be."""
    from ml_platform.spec.families import BUILT_IN

    message = f"version {version} of '{manifest.model}' has no explanations: "
    if (imported := manifest.provenance.imported) is not None:
        return (
            f"{message}it was imported ({imported.summary}), and its graph is not of a kind that is explained. "
            "Importing it again gives the same; a model that a family of the engine trains here has explanations"
        )
    if manifest.family in BUILT_IN:
        return f"{message}it was exported by an engine that wrote none for {manifest.family}: train it again"
    return (
        f"{message}its family '{manifest.family}' exports none, as an average of several trials, a model of "
        "log(1 + target), or a family of the project's own. Training it again gives the same; a version of a family "
        "of the engine, named in `families` of its defs.yaml, has explanations"
    )


def why_composed_not_explained(model: ComposedModel) -> str:
    """Say why a composed endpoint's answers are not explained, and what would be."""
    of = model.composition.of
    if isinstance(of, Pipeline):
        reason = "contributions to a step's input do not add up with those to the last step's score"
    elif isinstance(of, Ensemble) and model.manifest.task != "regression":
        reason = "members explain log-odds, whose mean is not that of probabilities"
    else:
        reason = "some member's graph has no explanations"
    return (
        f"'{model.name}' has no explanations, since {reason}: ask {', '.join(model.composition.members)} for their own"
    )


def _explain(model: ServedModel, explainer: Explainer, matrix: np.ndarray) -> list[dict[str, Any]]:
    """Explain each row; with several classes, the score of the highest one."""
    explained = explainer.explain(infinite_as_missing(matrix))
    raw = explained.base + explained.contributions.sum(axis=2)
    names = list(model.columns)
    probability = "probability" if model.manifest.calibration is None else "probability before calibration"
    explanations = []
    for row, target in enumerate(raw.argmax(axis=1).tolist()):
        raw_of = _RAW.get(model.manifest.task) or model.manifest.target_unit or model.manifest.target
        explanation: dict[str, Any] = {
            "method": explainer.method,
            "of": probability if explainer.probabilities else raw_of,
        }
        if model.manifest.task == "multiclass":
            explanation["class"] = model.manifest.classes[target]
        explanations.append(explanation | describe(names, explained.base[target], explained.contributions[row, target]))
    return explanations
