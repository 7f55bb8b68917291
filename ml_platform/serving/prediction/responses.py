"""Answers to prediction requests, from which every protocol makes its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ml_platform.registry.input_contract import Violation
from ml_platform.serving.models.intervals import Interval, IntervalLevel
from ml_platform.serving.models.slots import ServedModel


class Prediction(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Answer to one row: the predicted class, boolean or value, and its probability unless the task is regression."""

    id: str | int | float | msgspec.UnsetType = msgspec.UNSET
    prediction: bool | int | float | str
    probability: float | msgspec.UnsetType = msgspec.UNSET
    probabilities: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    interval: Interval | msgspec.UnsetType = msgspec.UNSET  # regression, where a level was asked for
    prediction_set: list[bool | int | str] | msgspec.UnsetType = msgspec.UNSET  # classes, where a level was asked for
    features: Mapping[str, Any] | msgspec.UnsetType = msgspec.UNSET
    explanation: Mapping[str, Any] | msgspec.UnsetType = msgspec.UNSET
    extras: Mapping[str, Any] | msgspec.UnsetType = msgspec.UNSET  # of the project's hook


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Answer to one request; one version answers all its rows, in their order."""

    model: str
    version: int
    request_id: str
    predictions: list[Prediction]
    members: dict[str, int] | msgspec.UnsetType = (
        msgspec.UNSET
    )  # of a composed endpoint: endpoint → version that answered
    interval: IntervalLevel | msgspec.UnsetType = msgspec.UNSET  # of which level intervals or sets are
    degraded: list[str] | msgspec.UnsetType = msgspec.UNSET  # what failed: online_store, inference_log
    flags: list[Mapping[str, Any]] | msgspec.UnsetType = msgspec.UNSET  # inputs that break the model's contract
    masked: list[str] | msgspec.UnsetType = msgspec.UNSET  # features that are null since this caller may not see them


def answer_of(model: ServedModel) -> Callable[[Any, Any, Any], Prediction]:
    """Choose the function that makes a row's answer from its id (or None), its prediction and its score."""
    if model.manifest.task == "binary":
        return _binary
    if model.manifest.task == "regression":
        return _value
    names = [str(name) for name in model.manifest.classes]  # JSON's keys are texts

    def multiclass(row_id: Any, outcome: str | int, score: list[float]) -> Prediction:
        probabilities = dict(zip(names, score, strict=True))
        identity = msgspec.UNSET if row_id is None else row_id
        return Prediction(id=identity, prediction=outcome, probability=max(score), probabilities=probabilities)

    return multiclass


def flags_of(violations: Sequence[Violation]) -> list[Mapping[str, Any]]:
    """Flags in an answer for inputs that break the contract but were answered."""
    return [{"row": flag.row, "field": flag.field, "message": flag.message} for flag in violations]


def _binary(row_id: Any, outcome: bool, score: float) -> Prediction:
    return Prediction(id=msgspec.UNSET if row_id is None else row_id, prediction=outcome, probability=score)


def _value(row_id: Any, outcome: float, score: float) -> Prediction:  # noqa: ARG001 - the value is the prediction
    return Prediction(id=msgspec.UNSET if row_id is None else row_id, prediction=outcome)
