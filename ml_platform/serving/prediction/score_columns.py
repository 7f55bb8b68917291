"""Scores many rows by column: each step once for all rows, with the same answers as `score_rows`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from ml_platform.features.expressions.column_operations import NotVectorised
from ml_platform.features.expressions.columns import Columns, microseconds
from ml_platform.inference.log import Batch
from ml_platform.serving.inputs.feature_lookup import FoundView
from ml_platform.serving.models.slots import ServedModel
from ml_platform.serving.prediction.responses import answer_of
from ml_platform.serving.prediction.score_rows import Scored
from ml_platform.serving.stage_timer import StageTimer


def score_columns(
    model: ServedModel,
    columns: Columns,
    body: bytes,
    request_id: str,
    caller: str | None,
    *,
    stages: StageTimer | None = None,
) -> Scored:
    """Derive, look up and score the columns that `RowDecoder.decode_columns` made of a body.

    Raises
    ------
    ValueError, ArithmeticError
        When features cannot be derived from some row.
    OnlineStoreFailed
        When the online store cannot be read and the fallback is "fail".
    """
    count = columns.count
    flags = [] if model.contract is None else model.contract.check_columns(columns.lists)
    columns.derive(model.scorer.column_features)
    now = datetime.now(UTC)
    as_of = _instants(columns, model.manifest.as_of, now)
    views, missing = model.lookups.find(columns, as_of)
    if stages is not None:
        stages.mark("look_up")
    matrix = _matrix(model, columns, views)
    raw_scores = model.scorer.score(matrix)
    scores: list[Any] = raw_scores.tolist()
    outcomes = _outcomes(model, raw_scores, scores)
    ids = columns.objects(model.manifest.id) if model.manifest.id is not None else []
    batch = Batch(
        batch=count,
        request_id=request_id,
        model=model.name,
        version=model.version,
        digest=model.digest,
        time=now,
        caller=caller,
        ids=[None if name is None else str(name) for name in ids],
        as_of=as_of.tolist(),
        inputs=msgspec.Raw(body if b"\n" not in body and b"\r" not in body else msgspec.json.format(body, indent=-1)),
        columns=model.columns,
        matrix=matrix.astype("<f8", copy=False).tobytes(),
        categories=_categories(model, columns, views),
        score=scores,
        prediction=outcomes,
        flags=flags,
    )
    predictions = list(map(answer_of(model), ids or [None] * count, outcomes, scores))
    if stages is not None:
        stages.mark("score")
    return Scored(predictions, [batch], missing, matrix, lambda: _rows(model, columns, views, matrix), flags)


def _instants(columns: Columns, name: str | None, now: datetime) -> np.ndarray:
    """The instant of each row in microseconds since 1970; now for rows without one."""
    if name is None:
        return np.full(columns.count, microseconds([now])[0])
    try:
        values = columns.vector(name).values
        return values if values.shape else np.full(columns.count, values)
    except NotVectorised:
        return microseconds([now if instant is None else instant for instant in columns.objects(name)])


def _matrix(model: ServedModel, columns: Columns, views: Sequence[FoundView]) -> np.ndarray:
    """The model's input (rows × features, float64)."""
    scorer = model.scorer
    matrix = np.empty((columns.count, len(model.columns)))
    for view in views:
        view.fill(matrix, scorer.encode_column)
    for position, feature in model.own_features:
        if feature.categories is None:
            matrix[:, position] = columns.floats(feature.name)
        else:
            values, index = columns.distinct(feature.name)
            matrix[:, position] = scorer.encode_column(position, values).take(index)
    return matrix


def _categories(model: ServedModel, columns: Columns, views: Sequence[FoundView]) -> dict[str, list[Any]]:
    """The categorical features before their encoding, by name."""
    names = [feature.name for feature in model.manifest.features if feature.categories is not None]
    looked_up = {column: (view, name) for view in views for name, column in view.view.columns} if names else {}
    objects_by_column = {}
    for column in names:
        if column in looked_up:
            view, name = looked_up[column]
            objects_by_column[column] = view.objects(name)
        else:
            objects_by_column[column] = columns.objects(column)
    return objects_by_column


def _rows(model: ServedModel, columns: Columns, views: Sequence[FoundView], matrix: np.ndarray) -> list[dict[str, Any]]:
    """The features of each row by name, before encoding."""
    categories = _categories(model, columns, views)
    columns_of_objects = [
        categories[name] if name in categories else [None if np.isnan(value) else value for value in numbers]
        for name, numbers in zip(model.columns, matrix.T.tolist(), strict=True)
    ]
    return [dict(zip(model.columns, row, strict=True)) for row in zip(*columns_of_objects, strict=True)]


def _outcomes(model: ServedModel, raw_scores: np.ndarray, scores: list[Any]) -> list[Any]:
    """The predictions that the scores stand for, as `Scorer.prediction` gives for one row."""
    if model.manifest.task == "binary":
        outcomes: list[Any] = (raw_scores >= model.manifest.threshold).tolist()
        return outcomes
    if model.manifest.task == "multiclass":
        classes = model.manifest.classes
        return [classes[position] for position in raw_scores.argmax(axis=1).tolist()]
    return scores
