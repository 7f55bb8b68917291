"""Answers and dead letters as rows of a table: the columns that their JSON objects become."""

from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl

from ml_platform.streams.answers import DeadLetter, StreamAnswer
from ml_platform.streams.protocols import Outcome

_INSTANT = pl.Datetime("us", "UTC")
_FAULTS = pl.List(pl.Struct({"field": pl.String, "message": pl.String}))
ANSWER_COLUMNS: dict[str, Any] = {
    "partition": pl.Int64,
    "position": pl.Int64,
    "scored_at": _INSTANT,
    "event_at": _INSTANT,
    "arrived_at": _INSTANT,
    "model_version": pl.Int64,
    "key": pl.String,
    "id": pl.String,
    "prediction": pl.String,  # replaced by the task's own type
    "probability": pl.Float64,
    "probabilities": pl.List(pl.Struct({"name": pl.String, "probability": pl.Float64})),
    "flags": _FAULTS,
    "degraded": pl.List(pl.String),
    "request_id": pl.String,
    "row": pl.Int64,
}
DEAD_LETTER_COLUMNS: dict[str, Any] = {
    "partition": pl.Int64,
    "position": pl.Int64,
    "refused_at": _INSTANT,
    "arrived_at": _INSTANT,
    "kind": pl.String,
    "reason": pl.String,
    "faults": _FAULTS,
    "key": pl.String,
    "value": pl.String,
    "value_bytes": pl.Binary,
    "truncated": pl.Boolean,
}
_decode_answer = msgspec.json.Decoder(StreamAnswer).decode
_decode_dead_letter = msgspec.json.Decoder(DeadLetter).decode
_encode = msgspec.json.Encoder().encode


def answer_rows(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Rows of answers, with `ANSWER_COLUMNS`; classes are texts, as in the other tables of scores.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> now = datetime(2024, 1, 1, tzinfo=UTC)
    >>> answer = StreamAnswer(
    ...     model="m", version=2, partition=0, position=7, request_id="stream-0-7", row=0, prediction=True,
    ...     probability=0.75, event_at=now, arrived_at=now, scored_at=now,
    ... )
    >>> rows = answer_rows([Outcome(0, 7, _encode(answer))])
    >>> rows.select("position", "model_version", "prediction", "probability").rows()
    [(7, 2, True, 0.75)]
    """
    answers = [_decode_answer(one.value) for one in outcomes]
    predictions, kind = _predictions([one.prediction for one in answers])
    columns: dict[str, list[Any]] = {
        "partition": [one.partition for one in answers],
        "position": [one.position for one in answers],
        "scored_at": [one.scored_at for one in answers],
        "event_at": [one.event_at for one in answers],
        "arrived_at": [one.arrived_at for one in answers],
        "model_version": [one.version for one in answers],
        "key": [_text(one.key) for one in answers],
        "id": [_text(one.id) for one in answers],
        "prediction": predictions,
        "probability": [one.probability for one in answers],
        "probabilities": [_named(one.probabilities) for one in answers],
        "flags": [one.flags for one in answers],
        "degraded": [one.degraded for one in answers],
        "request_id": [one.request_id for one in answers],
        "row": [one.row for one in answers],
    }
    return pl.DataFrame(columns, schema={**ANSWER_COLUMNS, "prediction": kind})


def dead_letter_rows(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Rows of dead letters, with `DEAD_LETTER_COLUMNS`."""
    letters = [_decode_dead_letter(one.value) for one in outcomes]
    return pl.DataFrame(
        {
            "partition": [one.partition for one in letters],
            "position": [one.position for one in letters],
            "refused_at": [one.refused_at for one in letters],
            "arrived_at": [one.arrived_at for one in letters],
            "kind": [one.kind for one in letters],
            "reason": [one.reason for one in letters],
            "faults": [[{"field": fault.field, "message": fault.message} for fault in one.faults] for one in letters],
            "key": [_text(one.key) for one in letters],
            "value": [one.value for one in letters],
            "value_bytes": [one.value_base64 for one in letters],
            "truncated": [one.truncated for one in letters],
        },
        schema=DEAD_LETTER_COLUMNS,
    )


def _predictions(values: list[Any]) -> tuple[list[Any], Any]:
    """Predictions as the column keeps them, and its type: booleans, floats, or classes as texts."""
    first = values[0] if values else ""
    if isinstance(first, bool):
        return values, pl.Boolean
    if isinstance(first, float):
        return [float(value) for value in values], pl.Float64
    return [str(value) for value in values], pl.String


def _named(probabilities: dict[str, float] | None) -> list[dict[str, Any]] | None:
    if probabilities is None:
        return None
    return [{"name": name, "probability": value} for name, value in probabilities.items()]


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return _encode(value).decode()
