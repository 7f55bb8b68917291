"""Scores a request by several models: the mean of their scores, one after another, or each row by its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ml_platform.features.expressions.columns import microseconds
from ml_platform.inference.log import Batch, Record
from ml_platform.registry.composition import Ensemble, Pipeline, Route
from ml_platform.registry.input_contract import Violation
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.feature_lookup import Missing
from ml_platform.serving.inputs.request_decoder import MANY
from ml_platform.serving.models.composed import ComposedModel
from ml_platform.serving.models.slots import ServedModel
from ml_platform.serving.prediction.responses import Prediction, answer_of
from ml_platform.serving.prediction.score_rows import Scored

# Scores a body by a member: by its name, with the version that answered.
ScoreMember = Callable[[str, bytes], tuple[ServedModel, Scored]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Rows(msgspec.Struct):
    rows: list[msgspec.Raw]


_ROWS = msgspec.json.Decoder(type=_Rows)
_ROW = msgspec.json.Decoder(type=dict[str, msgspec.Raw])


class Part(NamedTuple):
    """What one member made of some rows."""

    member: str
    model: ServedModel
    scored: Scored
    rows: Sequence[int]  # their positions in the request


@dataclass
class _Answers:
    """The answers of a composed endpoint, row by row."""

    scores: list[Any]
    predictions: list[Any]
    explanations: list[Any] = field(default_factory=list)


def score_composed(
    model: ComposedModel, body: bytes, request_id: str, caller: str | None, score: ScoreMember, *, explain: bool
) -> tuple[Scored, dict[str, int]]:
    """Score a body by the members of a composed endpoint.

    Returns
    -------
    tuple
        The answers with their log records, which have each member's score and version as features, and the versions
        that answered by member.

    Raises
    ------
    InvalidRequest
        When a member refuses a row; rows are numbered as in the body.
    OnlineStoreFailed
        As of the members.
    """
    of = model.composition.of
    if isinstance(of, Ensemble):
        parts = _all(model, body, score)
        answers = _mean(model, of, parts, explain=explain)
    elif isinstance(of, Pipeline):
        parts = _steps(of, body, score)
        answers = _of_rows(model, parts[-1:], explain=False)
    else:
        assert isinstance(of, Route)
        parts = _routed(model, of, body, score)
        answers = _of_rows(model, parts, explain=explain)
    return _scored(model, body, request_id, caller, parts, answers), {one.member: one.model.version for one in parts}


def _all(model: ComposedModel, body: bytes, score: ScoreMember) -> list[Part]:
    parts = []
    for name in model.composition.members:
        member, scored = score(name, body)
        parts.append(Part(name, member, scored, range(len(scored.predictions))))
    return parts


def _mean(model: ComposedModel, of: Ensemble, parts: Sequence[Part], *, explain: bool) -> _Answers:
    """The weighted mean of the members' scores, for several classes in the order of the first member's."""
    manifest = model.manifest
    weights = [of.members[part.member] for part in parts]
    if manifest.task == "multiclass":
        mean = np.zeros((len(parts[0].scored.predictions), len(manifest.classes)))
        for weight, part in zip(weights, parts, strict=True):
            mean += weight * np.array(_in_order(part, manifest.classes))
        return _Answers(mean.tolist(), [manifest.classes[place] for place in mean.argmax(axis=1).tolist()])
    scores: list[Any] = [
        sum(map(float.__mul__, weights, row)) for row in zip(*(_scores(one.scored) for one in parts), strict=True)
    ]
    if manifest.task == "binary":
        threshold = of.threshold if of.threshold is not None else _mean_threshold(weights, parts)
        return _Answers(scores, [score >= threshold for score in scores])
    explanations = _mean_explanations(weights, parts) if explain else []
    return _Answers(scores, scores, explanations)


def _mean_threshold(weights: Sequence[float], parts: Sequence[Part]) -> float:
    """The weighted mean of the thresholds of just the versions that answered."""
    return sum(weight * (part.model.manifest.threshold or 0.0) for weight, part in zip(weights, parts, strict=True))


def _mean_explanations(weights: Sequence[float], parts: Sequence[Part]) -> list[Any]:
    """Explanations of a mean of values: contributions of a feature that several members have add up too."""
    mixed = []
    for row in range(len(parts[0].scored.predictions)):
        ones: list[Any] = [part.scored.predictions[row].explanation for part in parts]
        contributions: dict[str, float] = {}
        for weight, one in zip(weights, ones, strict=True):
            for name, value in one["contributions"].items():
                contributions[name] = contributions.get(name, 0.0) + weight * value
        methods = dict.fromkeys(one["method"] for one in ones)
        mixed.append(
            {
                "method": next(iter(methods)) if len(methods) == 1 else "tree_shap",
                "of": ones[0]["of"],
                "base": sum(weight * one["base"] for weight, one in zip(weights, ones, strict=True)),
                "raw_score": sum(weight * one["raw_score"] for weight, one in zip(weights, ones, strict=True)),
                "contributions": dict(sorted(contributions.items(), key=lambda pair: -abs(pair[1]))),
            }
        )
    return mixed


def _steps(of: Pipeline, body: bytes, score: ScoreMember) -> list[Part]:
    """Score step by step; what earlier ones give is put into the rows of later ones."""
    parts: list[Part] = []
    for step in of.steps:
        values = {}
        for name, (source, given) in step.inputs.items():
            [part] = [one for one in parts if one.member == source]
            values[name] = [getattr(one, given) for one in part.scored.predictions]
        try:
            model, scored = score(step.model, _with_values(body, values) if values else body)
        except InvalidRequest as invalid:
            raise invalid.reworded(lambda problem, step=step: _of_step(problem, step.inputs)) from invalid  # type: ignore[misc]
        parts.append(Part(step.model, model, scored, range(len(scored.predictions))))
    return parts


def _of_step(problem: Problem, given: Mapping[str, tuple[str, str]]) -> Problem:
    """Say of a refused value that no client sent it."""
    if problem.field is None or problem.field not in given:
        return problem
    source, output = given[problem.field]
    return Problem(problem.row, problem.field, f"{problem.message} (this is the {output} of '{source}')", problem.kind)


def _with_values(body: bytes, values: Mapping[str, Sequence[Any]]) -> bytes:
    """A body that an earlier step has read, with further values in its rows."""
    is_many = MANY.match(body) is not None
    rows = [_ROW.decode(raw) for raw in _ROWS.decode(body).rows] if is_many else [_ROW.decode(body)]
    for name, column in values.items():
        for row, value in zip(rows, column, strict=True):
            row[name] = msgspec.Raw(msgspec.json.encode(value))
    return msgspec.json.encode({"rows": rows} if is_many else rows[0])


def _routed(model: ComposedModel, of: Route, body: bytes, score: ScoreMember) -> list[Part]:
    """Score each row by the member of its segment: the rows of a member together."""
    assert model.router is not None
    try:
        members = model.router.members(body, is_many=MANY.match(body) is not None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, ValueError, ArithmeticError) as error:
        model.decoder.decode(body)  # says what is wrong with which row
        problem = Problem(None, None, f"who answers cannot be decided: {error}")
        raise InvalidRequest(422, [problem]) from error
    rows_of: dict[str, list[int]] = {}
    for row, member in enumerate(members or [of.default]):  # who refuses a body without rows
        rows_of.setdefault(member, []).append(row)
    raws = _ROWS.decode(body).rows if len(rows_of) > 1 else []
    parts = []
    for member, rows in rows_of.items():
        own = body if len(rows_of) == 1 else b'{"rows":[' + b",".join(bytes(raws[row]) for row in rows) + b"]}"
        try:
            version, scored = score(member, own)
        except InvalidRequest as invalid:
            raise invalid.reworded(lambda problem, rows=rows: _in_body(problem, rows, len(members))) from invalid  # type: ignore[misc]
        parts.append(Part(member, version, scored, rows))
    return parts


def _in_body(problem: Problem, rows: Sequence[int], number: int) -> Problem:
    """A problem of a member's rows, numbered as in the request."""
    row = problem.row if problem.row is not None else 0 if len(rows) == 1 else None
    place = None if row is None or number == 1 else rows[row]
    return Problem(place, problem.field, problem.message, problem.kind)


def _of_rows(model: ComposedModel, parts: Sequence[Part], *, explain: bool) -> _Answers:
    """The members' own answers, in the order of the rows."""
    number = sum(len(part.rows) for part in parts)
    answers = _Answers([None] * number, [None] * number, [None] * number if explain else [])
    for part in parts:
        scores = _in_order(part, model.manifest.classes)
        for row, score, prediction in zip(part.rows, scores, part.scored.predictions, strict=True):
            answers.scores[row], answers.predictions[row] = score, prediction.prediction
            if explain:
                answers.explanations[row] = prediction.explanation
    return answers


def _scores(scored: Scored) -> list[Any]:
    records = scored.records
    return records[0].score if isinstance(records[0], Batch) else [record.score for record in records]


def _in_order(part: Part, classes: Sequence[Any]) -> list[Any]:
    """The scores of a part's rows, those of several classes in the order of these."""
    scores, own = _scores(part.scored), part.model.manifest.classes
    if part.model.manifest.task != "multiclass" or tuple(own) == tuple(classes):
        return scores
    places = [own.index(name) for name in classes]
    return [[row[place] for place in places] for row in scores]


def _instants(scored: Scored) -> list[int]:
    """The instant of each row's look-ups, in microseconds since 1970."""
    records = scored.records
    return records[0].as_of if isinstance(records[0], Batch) else microseconds([one.as_of for one in records]).tolist()


def _scored(  # noqa: PLR0917 - what a record says
    model: ComposedModel, body: bytes, request_id: str, caller: str | None, parts: Sequence[Part], answers: _Answers
) -> Scored:
    """Predictions and log records of the rows that the members answered."""
    missing, flags = Missing(), list[Violation]()
    for part in parts:
        if part.scored.missing:
            for view, count in part.scored.missing.items():
                missing[view] = missing.get(view, 0) + count
        missing.store_failed = missing.store_failed or part.scored.missing.store_failed
        if part.scored.flags:
            flags += [msgspec.structs.replace(flag, row=part.rows[flag.row]) for flag in part.scored.flags]
    scored = _scored_row if MANY.match(body) is None else _scored_rows
    predictions, record, features = scored(model, body, request_id, caller, parts, answers)
    if flags:
        flags = record.flags = list(dict.fromkeys(flags))  # several members may flag the same value
    if answers.explanations:
        for prediction, explanation in zip(predictions, answers.explanations, strict=True):
            prediction.explanation = explanation
    return Scored(predictions, [record], missing, None, features, flags)


def _scored_row(  # noqa: PLR0917
    model: ComposedModel, body: bytes, request_id: str, caller: str | None, parts: Sequence[Part], answers: _Answers
) -> tuple[list[Prediction], Record | Batch, Callable[[], list[Any]]]:
    """The same as `_scored_rows` says, of one row: a third of the time."""
    features: dict[str, Any] = dict.fromkeys(model.log_columns)
    for part in parts:
        if part.member in model.hidden:
            continue
        [score] = _scores(part.scored)
        features[f"{part.member}__score"] = max(score) if isinstance(score, list) else score
        features[f"{part.member}__version"] = part.model.version
    identity = parts[0].scored.predictions[0].id
    name = None if identity is msgspec.UNSET else identity
    first = parts[0].scored.records[0]
    record = Record(
        request_id=request_id,
        row=0,
        id=None if name is None else str(name),
        model=model.name,
        version=model.version,
        digest=model.digest,
        time=first.time,
        as_of=_EPOCH + timedelta(microseconds=first.as_of[0]) if isinstance(first, Batch) else first.as_of,
        caller=caller,
        inputs=_line(body),
        features=features,
        score=answers.scores[0],
        prediction=answers.predictions[0],
    )
    return [answer_of(model)(name, answers.predictions[0], answers.scores[0])], record, lambda: [features]


def _scored_rows(  # noqa: PLR0917
    model: ComposedModel, body: bytes, request_id: str, caller: str | None, parts: Sequence[Part], answers: _Answers
) -> tuple[list[Prediction], Record | Batch, Callable[[], list[Any]]]:
    """Predictions of many rows, what the log keeps of them, and what makes their features."""
    number = len(answers.scores)
    matrix = _matrix(model, parts, number)
    if len(parts[0].rows) == number:
        names, instants = _names(parts[0].scored), _instants(parts[0].scored)
    else:
        names, instants = [None] * number, [0] * number
        for part in parts:
            for row, name, instant in zip(part.rows, _names(part.scored), _instants(part.scored), strict=True):
                names[row], instants[row] = name, instant
    batch = Batch(
        batch=number,
        request_id=request_id,
        model=model.name,
        version=model.version,
        digest=model.digest,
        time=datetime.now(UTC),
        caller=caller,
        ids=[] if model.manifest.id is None else [None if name is None else str(name) for name in names],
        as_of=instants,
        inputs=_line(body),
        columns=model.log_columns,
        matrix=matrix.astype("<f8", copy=False).tobytes(),
        categories={},
        score=answers.scores,
        prediction=answers.predictions,
    )
    predictions = list(map(answer_of(model), names, answers.predictions, answers.scores))

    def features() -> list[Any]:
        return [dict(zip(model.log_columns, map(_or_none, row), strict=True)) for row in matrix.tolist()]

    return predictions, batch, features


def _names(scored: Scored) -> list[Any]:
    """The id of each row, None where it has none."""
    return [None if one.id is msgspec.UNSET else one.id for one in scored.predictions]


def _matrix(model: ComposedModel, parts: Sequence[Part], number: int) -> np.ndarray:
    """What the log keeps of the members (rows × twice the members): scores and versions, NaN for who was not asked."""
    places = {name: 2 * place for place, name in enumerate(model.composition.members)}
    matrix = np.full((number, len(model.log_columns)), np.nan)
    for part in parts:
        if part.member in model.hidden:
            continue
        place, scores = places[part.member], _scores(part.scored)
        rows = part.rows if isinstance(part.rows, list) else slice(None)
        matrix[rows, place] = [max(one) for one in scores] if part.model.manifest.task == "multiclass" else scores
        matrix[rows, place + 1] = part.model.version
    return matrix


def _or_none(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124 - NaN stands for null


def _line(body: bytes) -> msgspec.Raw:
    return msgspec.Raw(body if b"\n" not in body and b"\r" not in body else msgspec.json.format(body, indent=-1))
