"""Scores a few rows, one after another: the cheapest way for one row. See `score_columns` for many."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from ml_platform.inference.log import Record
from ml_platform.registry.input_contract import Contract, Violation
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.feature_lookup import Missing
from ml_platform.serving.inputs.request_decoder import Rows
from ml_platform.serving.models.slots import ServedModel
from ml_platform.serving.prediction.responses import Prediction, answer_of
from ml_platform.serving.stage_timer import StageTimer


class Scored(NamedTuple):
    """The predictions for rows, and their log records."""

    predictions: list[Prediction]
    records: Sequence[Any]
    missing: Missing
    matrix: np.ndarray | None  # the model's input; None when only one row was scored
    features: Callable[[], list[Any]]  # makes the features of each row by name, before encoding
    flags: Sequence[Violation] = ()


def score_rows(
    model: ServedModel, rows: Rows, request_id: str, caller: str | None, *, stages: StageTimer | None = None
) -> Scored:
    """Derive and look up features of rows, and score them.

    Raises
    ------
    InvalidRequest
        When features cannot be derived from a row.
    OnlineStoreFailed
        When the online store cannot be read and the fallback is "fail".
    """
    now = datetime.now(UTC)
    flags = [] if model.contract is None else _check(model.contract, rows.values)
    values, instants, missing = _complete(model, rows.values, now)
    if stages is not None:
        stages.mark("look_up")
    matrix = None
    if len(values) == 1:
        scores = [model.scorer.score_row(values[0])]
    else:
        matrix = model.scorer.encode(values)
        scores = model.scorer.score(matrix).tolist()
    predictions = []
    records = []
    features = []
    id_name = model.manifest.id
    columns = model.columns
    answer = answer_of(model)
    for number, (row, score) in enumerate(zip(values, scores, strict=True)):
        prediction = model.scorer.prediction(score)
        row_id = row[id_name] if id_name is not None else None
        predictions.append(answer(row_id, prediction, score))
        seen = {column: row[column] for column in columns}
        features.append(seen)
        records.append(
            Record(
                request_id=request_id,
                row=number,
                id=None if row_id is None else str(row_id),
                model=model.name,
                version=model.version,
                digest=model.digest,
                time=now,
                as_of=instants[number],
                caller=caller,
                inputs=rows.sent[number],
                features=seen,
                score=score,
                prediction=prediction,
            )
        )
    for flag in flags:
        records[flag.row].flags = [*records[flag.row].flags, flag]
    if stages is not None:
        stages.mark("score")
    return Scored(predictions, records, missing, matrix, lambda: features, flags)


def _check(contract: Contract, rows: Sequence[dict[str, Any]]) -> list[Violation]:
    """Find the rows' violations that are only flagged; nulls with a default get it."""
    return [flag for number, row in enumerate(rows) for flag in contract.check_row(row, number)]


def _complete(
    model: ServedModel, inputs: Sequence[dict[str, Any]], now: datetime
) -> tuple[Sequence[dict[str, Any]], list[datetime], Missing]:
    """Add derived and looked-up features to the inputs, in place.

    Returns
    -------
    tuple
        The rows, the instant of each, and what was not found.
    """
    for number, row in enumerate(inputs):
        try:
            row.update(model.scorer.derive(row))
        except (ValueError, ArithmeticError) as error:
            row_number = number if len(inputs) > 1 else None
            problem = Problem(row_number, None, f"features cannot be derived from it: {error}")
            raise InvalidRequest(422, [problem]) from error
    name = model.manifest.as_of
    instants = [now if name is None else row[name] or now for row in inputs]
    return inputs, instants, model.lookups.add(inputs, instants)
