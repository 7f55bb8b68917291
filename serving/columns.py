"""Many rows by column: each step once for all of them, with the answers that `serving.rows` gives one by one."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from ml_platform.features.column_operations import NotVectorised
from ml_platform.features.vectorised import Columns, microseconds
from ml_platform.inference.log import Batch
from serving.answers import answer_of
from serving.lookups import FoundView
from serving.rows import Scored
from serving.stages import Stages
from serving.state import ServedModel


def score_columns(
    model: ServedModel,
    columns: Columns,
    body: bytes,
    request_id: str,
    caller: str | None,
    *,
    stages: Stages | None = None,
) -> Scored:
    """Derive, look up and score the columns that `RowDecoder.decode_columns` made of a body.

    Raises
    ------
    ValueError, ArithmeticError
        When features cannot be derived from some row.
    OnlineStoreFailed
        When the online store cannot be read and nothing may stand for it.
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
    found = model.scorer.score(matrix)
    scores: list[Any] = found.tolist()
    said: list[Any] = _said(model, found, scores)
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
        prediction=said,
        flags=flags,
    )
    predictions = list(map(answer_of(model), ids or [None] * count, said, scores))
    if stages is not None:
        stages.mark("score")
    return Scored(predictions, [batch], missing, matrix, lambda: _rows(model, columns, views, matrix), flags)


def _instants(columns: Columns, name: str | None, now: datetime) -> np.ndarray:
    """The instant of each row in microseconds since 1970, now where it has none."""
    if name is None:
        return np.full(columns.count, microseconds([now])[0])
    try:
        found = columns.vector(name).values
        return found if found.shape else np.full(columns.count, found)
    except NotVectorised:
        return microseconds([now if instant is None else instant for instant in columns.objects(name)])


def _matrix(model: ServedModel, columns: Columns, views: Sequence[FoundView]) -> np.ndarray:
    """What the model sees (rows × features, float64)."""
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
    """The categorical columns of the matrix before their encoding."""
    names = [feature.name for feature in model.manifest.features if feature.categories is not None]
    looked_up = {column: (view, name) for view in views for name, column in view.view.columns} if names else {}
    found = {}
    for column in names:
        if column in looked_up:
            view, name = looked_up[column]
            found[column] = view.objects(name)
        else:
            found[column] = columns.objects(column)
    return found


def _rows(model: ServedModel, columns: Columns, views: Sequence[FoundView], matrix: np.ndarray) -> list[dict[str, Any]]:
    """What the model saw of each row, before encoding."""
    categories = _categories(model, columns, views)
    found = [
        categories[name] if name in categories else [None if np.isnan(value) else value for value in numbers]
        for name, numbers in zip(model.columns, matrix.T.tolist(), strict=True)
    ]
    return [dict(zip(model.columns, row, strict=True)) for row in zip(*found, strict=True)]


def _said(model: ServedModel, found: np.ndarray, scores: list[Any]) -> list[Any]:
    """What the scores mean, as `Scorer.prediction` says of one."""
    if model.manifest.task == "binary":
        said: list[Any] = (found >= model.manifest.threshold).tolist()
        return said
    if model.manifest.task == "multiclass":
        classes = model.manifest.classes
        return [classes[position] for position in found.argmax(axis=1).tolist()]
    return scores
