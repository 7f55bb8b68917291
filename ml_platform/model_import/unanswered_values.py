"""What a model has no answer to: refused at its import where the folder's contract lets such a value reach it."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.model_import.foreign import Bound
from ml_platform.model_import.refused import ImportRefused
from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Feature
from ml_platform.spec.inputs import InputField
from ml_platform.spec.model import ModelSpec

_UNKNOWN_NUMBER = 0.1234567  # no category of anybody
_MOST_NAMED = 20


def check_refusals(
    spec: ModelSpec, bound: Bound, encoder: FeatureEncoder, rows: pl.DataFrame, nullable: set[str]
) -> np.ndarray:
    """Ask the model for a missing and for an unknown value of each feature, and refuse it where it may get one.

    Parameters
    ----------
    spec
        The model's declaration.
    bound, encoder
        The model, and what makes its matrix.
    rows
        Some rows, of which one without nulls is changed.
    nullable
        Features that may be null in a request.

    Returns
    -------
    np.ndarray
        What it refuses: (features × 2), for missing and for unknown.

    Raises
    ------
    ImportRefused
        When the model has no answer to a value that the folder's contract lets through.
    """
    X = encoder.transform(rows)
    coded = np.array([feature.categories is not None for feature in encoder.features])
    complete = X[~(np.isnan(X) | ((X < 0) & coded)).any(axis=1)]
    row = (complete if len(complete) else X)[:1]
    refused = np.zeros((len(encoder.features), 2), dtype=bool)
    problems = []
    fields = {one.name: one for one in spec.inputs}
    for place, feature in enumerate(encoder.features):
        if feature.categories is None:
            missing, unknown_value = np.nan, _possible_number(fields.get(feature.name))
        else:
            missing, unknown_value = MISSING_CODE, UNSEEN_CODE
        answer = _answer(bound, row, place, unknown_value)
        refused[place] = not _answers(bound, row, place, missing), not _is_finite(answer)
        if refused[place, 0] and feature.name in nullable:
            problems.append(
                f"the model has no answer where '{feature.name}' ({feature.source}) is missing, which the folder's "
                "contract "
                "allows: set `nulls: reject` or a `default` for it, or put an imputer into the model"
            )
        if refused[place, 1] and not _is_closed(spec, bound, feature, row, place):
            if feature.categories is None and answer is not None:
                problems.append(_not_finite(feature, unknown_value, answer, is_input=feature.name in fields))
                continue
            listed = ", ".join((feature.categories or ())[:_MOST_NAMED]) or "…"
            problems.append(
                f"the model refuses a value of '{feature.name}' that it does not know (handle_unknown='error'): set "
                "`allowed: "
                f"[{listed}]` for the input, or fit the encoder with handle_unknown='ignore'"
            )
    if problems:
        raise ImportRefused("; ".join(problems))
    return refused


def _possible_number(field: InputField | None) -> float:
    """A number that no encoder has seen, and that the contract of the input lets through."""
    if field is None or field.on_violation != "reject":
        return _UNKNOWN_NUMBER
    low = -math.inf if field.minimum is None else field.minimum
    high = math.inf if field.maximum is None else field.maximum
    if low <= _UNKNOWN_NUMBER <= high:
        return _UNKNOWN_NUMBER
    if math.isinf(low):
        return high - _UNKNOWN_NUMBER
    return low + _UNKNOWN_NUMBER * min(high - low, 1.0)


def _not_finite(feature: Feature, value: float, answer: np.ndarray, *, is_input: bool) -> str:
    bounds = "set `minimum` or `maximum` for the input in defs.yaml, with `on_violation: reject`, or "
    return (
        f"the model answers {'NaN' if np.isnan(answer).any() else 'inf'} for '{feature.name}' = {value:.7g} "
        f"({feature.source}), which the folder's contract allows: {bounds if is_input else ''}clip it in the model"
    )


def _answer(bound: Bound, row: np.ndarray, place: int, value: float) -> np.ndarray | None:
    """The model's answer to a row with one value changed; None where its library raises an error."""
    changed = row.copy()
    changed[0, place] = value
    try:
        return bound.native(changed)
    except Exception:  # noqa: BLE001 - whatever a library raises for a value that it does not take
        return None


def _is_finite(answer: np.ndarray | None) -> bool:
    return answer is not None and bool(np.isfinite(answer).all())


def _answers(bound: Bound, row: np.ndarray, place: int, value: float) -> bool:
    return _is_finite(_answer(bound, row, place, value))


def _is_closed(spec: ModelSpec, bound: Bound, feature: Feature, row: np.ndarray, place: int) -> bool:
    """Whether the contract lets only values through that the model knows."""
    field = next((one for one in spec.inputs if one.name == feature.name), None)
    if field is None or not field.allowed or field.on_violation != "reject":
        return False
    if feature.categories is not None:
        return {str(one) for one in field.allowed} <= set(feature.categories)
    return all(_answers(bound, row, place, float(one)) for one in field.allowed)


def without_refused(X: np.ndarray, features: Sequence[Feature], refused: np.ndarray) -> np.ndarray:
    """Rows of a matrix that have no value which the model refuses."""
    keep = np.ones(len(X), dtype=bool)
    for place, feature in enumerate(features):
        column = X[:, place]
        missing = np.isnan(column) if feature.categories is None else column == MISSING_CODE
        unseen = np.zeros(len(X), dtype=bool) if feature.categories is None else column == UNSEEN_CODE
        keep &= ~(missing & refused[place, 0]) & ~(unseen & refused[place, 1])
    return X[keep]
