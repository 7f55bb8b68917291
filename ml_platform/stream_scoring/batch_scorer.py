"""Scores a micro-batch of messages as HTTP would score each: version by traffic, contract, look-ups, log, shadows."""

import logging
import time
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from ml_platform.inference.log import SHADOW, InferenceLog
from ml_platform.inference.outcomes import UNITS, OutcomeLog
from ml_platform.inference.outcomes import Outcome as WalkOutcome
from ml_platform.registry.input_contract import violations_by_field
from ml_platform.segment_log.segments import LogUnavailable
from ml_platform.serving.http.problems import InvalidRequest
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed
from ml_platform.serving.models.slots import EndpointState, ServedModel
from ml_platform.serving.prediction.responses import Prediction
from ml_platform.serving.prediction.score_body import score_body
from ml_platform.serving.prediction.score_rows import Scored
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.spec.stream import Stream
from ml_platform.stream_scoring.messages import MessageReader, MessageRow, Unreadable
from ml_platform.streams.answers import DeadLetter, Fault, Kind, StreamAnswer
from ml_platform.streams.bounded_json import encode_answer, encode_dead_letter
from ml_platform.streams.protocols import Message, Outcome

CALLER = "stream"  # of the rows of the inference log
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
logger = logging.getLogger("streams")


class _Refusal(NamedTuple):
    """Why a message is not answered."""

    kind: Kind
    reason: str
    faults: tuple[Fault, ...] = ()


class _Row(NamedTuple):
    """A message that may be answered, and its place in the micro-batch."""

    place: int
    said: MessageRow


class BatchScorer:
    """Scores the messages of one stream.

    Parameters
    ----------
    model
        Name of the model.
    stream
        What its `stream:` declares.
    log, outcomes
        The inference log, and that of canary walks.
    metrics
        Of serving: predictions, look-ups, contract and shadows count there as requests do.
    answer_without_log
        Whether messages are answered while the log cannot be written (`ServingSettings.log_fallback`).
    """

    def __init__(
        self,
        model: str,
        stream: Stream,
        *,
        log: InferenceLog,
        outcomes: OutcomeLog,
        metrics: Metrics,
        answer_without_log: bool = False,
    ) -> None:
        self._model, self._stream, self._log, self._outcomes, self._metrics = model, stream, log, outcomes, metrics
        self._answer_without_log = answer_without_log
        self._late_after = stream.late_after
        self._readers: dict[tuple[str, ...], MessageReader] = {}
        self._walk_fails = False

    def score(self, slot: EndpointState, messages: Sequence[Message]) -> list[Outcome]:
        """Score messages, at most 10,000, and log what is answered.

        Returns
        -------
        list
            An outcome for each message, in their order.

        Raises
        ------
        OnlineStoreFailed
            When the online store cannot be read and `online_fallback` is "fail": nothing was answered.
        LogUnavailable
            When the log cannot be written and `log_fallback` is "refuse".
        """
        outcomes: list[Outcome | None] = [None] * len(messages)
        rows = []
        for place, message in enumerate(messages):
            try:
                said = self._reader(slot).read(message)
            except Unreadable as error:
                fault = Fault(error.field, error.message)
                outcomes[place] = self._dead(message, _Refusal(error.kind, str(error), (fault,)))
                continue
            if self._late_after is not None and (late := self._lateness(message, said)) > self._late_after:
                reason = f"{late} after its event; late_after is {self._late_after}"
                outcomes[place] = self._dead(message, _Refusal("late", reason))
                continue
            rows.append(_Row(place, said))
        for model, chosen in self._by_version(slot, messages, rows):
            for part in [[row] for row in chosen] if _is_one_body(model) else [chosen]:
                self._score_part(slot, model, messages, part, outcomes)
        return [outcome for outcome in outcomes if outcome is not None]

    def _reader(self, slot: EndpointState) -> MessageReader:
        names = tuple(one.name for one in slot.inputs)
        reader = self._readers.get(names)
        if reader is None:
            reader = self._readers[names] = MessageReader(names, self._stream.mapping)
        return reader

    @staticmethod
    def _lateness(message: Message, said: MessageRow) -> timedelta:
        return _EPOCH + timedelta(microseconds=message.time) - said.event_at

    @staticmethod
    def _by_version(
        slot: EndpointState, messages: Sequence[Message], rows: list[_Row]
    ) -> Iterable[tuple[ServedModel, list[_Row]]]:
        """Rows by the version that the traffic split gives each message, as it would give each request."""
        if not rows:
            return []
        if len(slot.served) == 1:
            return [(slot.served[0], rows)]
        chosen: dict[int, tuple[ServedModel, list[_Row]]] = {}
        for row in rows:
            model = slot.choose(slot.key_of(row.said.row) or _request_id(messages[row.place]))
            chosen.setdefault(model.version, (model, []))[1].append(row)
        return chosen.values()

    def _score_part(
        self,
        slot: EndpointState,
        model: ServedModel,
        messages: Sequence[Message],
        rows: list[_Row],
        outcomes: list[Outcome | None],
    ) -> None:
        """Score rows by one version, and put what became of each into its place."""
        started = time.perf_counter()
        try:
            scored, request_id = self._scored(model, messages, rows)
        except OnlineStoreFailed:
            raise
        except Exception as error:  # noqa: BLE001 - some row is at fault: each is tried by itself, and told
            if not isinstance(error, InvalidRequest):
                logger.warning("%s: version %d could not score a batch: %r", self._model, model.version, error)
            rows, refused = self._possible(model, rows)
            for row, refusal in refused:
                outcomes[row.place] = self._dead(messages[row.place], refusal)
                self._note_walk(slot, model, messages, [row], time.perf_counter() - started, None)
            if not rows:
                return
            scored, request_id = self._scored(model, messages, rows)
        seconds = time.perf_counter() - started
        self._write_log(model, scored.records, request_id)
        self._note_walk(slot, model, messages, rows, seconds, scored)
        self._count(model, scored)
        flags: dict[int, list[dict[str, Any]]] = {}
        for flag in scored.flags:
            flags.setdefault(flag.row, []).append({"field": flag.field, "message": flag.message})
        now = datetime.now(UTC)
        degraded = ["online_store"] if scored.missing.store_failed else None
        for number, (row, prediction) in enumerate(zip(rows, scored.predictions, strict=True)):
            message = messages[row.place]
            answer = _answer(model, message, row.said, prediction, now)
            answer.request_id, answer.row = request_id, number
            answer.flags, answer.degraded = flags.get(number), degraded
            outcomes[row.place] = Outcome(message.partition, message.position, encode_answer(answer))
        if slot.shadows:
            self._show_shadows(slot, model, rows, request_id)

    def _scored(self, model: ServedModel, messages: Sequence[Message], rows: list[_Row]) -> tuple[Scored, str]:
        request_id = _request_id(messages[rows[0].place])
        return score_body(model, _body(model, rows), request_id, CALLER), request_id

    def _possible(self, model: ServedModel, rows: list[_Row]) -> tuple[list[_Row], list[tuple[_Row, _Refusal]]]:
        """Rows that can be scored, each tried by itself, and why the others cannot."""
        possible, refused = [], []
        for row in rows:
            try:
                score_body(model, row.said.row, "", CALLER)
            except OnlineStoreFailed:
                raise
            except InvalidRequest as invalid:
                self._count_violations(invalid.kinds)
                faults = tuple(Fault(one.field, one.message) for one in invalid.problems)
                derived = invalid.status != 400 and all(one.field is None for one in invalid.problems)
                kind: Kind = "broken" if invalid.status == 400 else "features" if derived else "contract"
                refused.append((row, _Refusal(kind, str(invalid), faults)))
            except Exception as error:  # noqa: BLE001 - else one message that nobody foresaw would stop the stream
                logger.error("%s: version %d cannot score a message: %r", self._model, model.version, error)
                refused.append((row, _Refusal("failed", f"{type(error).__name__}: {error}")))
            else:
                possible.append(row)
        return possible, refused

    def _write_log(self, model: ServedModel, records: Sequence[Any], request_id: str) -> None:
        if model.log_filter is not None and not (records := model.log_filter.apply(records, request_id)):
            return
        try:
            self._log.append(self._model, records)
        except LogUnavailable as error:
            if not self._answer_without_log:
                self._metrics.log_failures.labels(self._model).inc()
                raise
            logger.error("%s: answered and not logged: %s", self._model, error)
            self._metrics.log_lost.labels(self._model).inc(len(records))

    def _note_walk(  # noqa: PLR0917 - one step of `score`
        self,
        slot: EndpointState,
        model: ServedModel,
        messages: Sequence[Message],
        rows: Sequence[_Row],
        seconds: float,
        scored: Scored | None,
    ) -> None:
        """Note how each message of a canary walk went, as serving does of requests."""
        if len(slot.served) < 2 or slot.endpoint is None or slot.endpoint.walk is None:
            return
        scores: list[Any] = []
        for record in scored.records if scored is not None else ():
            scores += record.score if hasattr(record, "batch") else [record.score]
        flagged = {flag.row for flag in scored.flags} if scored is not None else set()
        now, each = time.time(), round(seconds / len(rows), 7)
        lines = [
            WalkOutcome(
                revision=slot.endpoint.revision,
                version=model.version,
                time=now,
                seconds=each,
                failed=scored is None,
                flagged=number in flagged,
                unit=zlib.crc32((slot.key_of(row.said.row) or _request_id(messages[row.place])).encode()) % UNITS,
                scores=() if scored is None else (scores[number],),
            )
            for number, row in enumerate(rows)
        ]
        try:
            self._outcomes.append(slot.endpoint.name, lines)
            self._walk_fails = False
        except LogUnavailable as error:
            if not self._walk_fails:
                logger.error("%s: its canary walk cannot be judged: %s", slot.endpoint.name, error)
            self._walk_fails = True

    def _count(self, model: ServedModel, scored: Scored) -> None:
        self._metrics.predictions.labels(self._model, str(model.version)).inc(len(scored.predictions))
        for view, count in scored.missing.items():
            self._metrics.not_found.labels(self._model, view).inc(count)
        if scored.missing.store_failed:
            self._metrics.degraded.labels(self._model).inc(len(scored.predictions))
        if scored.flags:
            self._count_violations(violations_by_field(scored.flags))

    def _count_violations(self, violations: Any) -> None:
        for (field, kind), number in violations.items():
            self._metrics.contract_violations.labels(self._model, field, kind).inc(number)

    def _show_shadows(self, slot: EndpointState, answered: ServedModel, rows: list[_Row], request_id: str) -> None:
        """Score rows by the shadow versions, and log them; whatever goes wrong is counted, and concerns no answer."""
        for shadow in slot.shadows:
            if shadow.version == answered.version:
                continue
            version = str(shadow.version)
            try:
                scored = score_body(shadow, _body(shadow, rows), request_id, CALLER)
                records = scored.records
                if shadow.log_filter is not None:
                    records = shadow.log_filter.apply(records, request_id)
                if records:
                    self._log.append(self._model + SHADOW, records)
                self._metrics.shadowed.labels(self._model, version).inc(len(rows))
            except Exception as error:  # noqa: BLE001 - a shadow must not stop the stream
                logger.error("%s: shadow version %s failed: %s", self._model, version, error)
                self._metrics.shadow_lost.labels(self._model, version, type(error).__name__).inc()

    def _dead(self, message: Message, refusal: _Refusal) -> Outcome:
        letter = DeadLetter(
            model=self._model,
            partition=message.partition,
            position=message.position,
            kind=refusal.kind,
            reason=refusal.reason,
            faults=refusal.faults,
            key=None if message.key is None else message.key.decode(errors="replace"),
            arrived_at=_EPOCH + timedelta(microseconds=message.time),
            refused_at=datetime.now(UTC),
        )
        return Outcome(message.partition, message.position, encode_dead_letter(letter, message.value), refusal.kind)


def _answer(
    model: ServedModel, message: Message, said: MessageRow, prediction: Prediction, now: datetime
) -> StreamAnswer:
    unset = msgspec.UNSET
    return StreamAnswer(
        model=model.name,
        version=model.version,
        partition=message.partition,
        position=message.position,
        request_id="",
        row=0,
        key=said.key,
        id=None if prediction.id is unset else prediction.id,
        prediction=prediction.prediction,
        probability=None if prediction.probability is unset else prediction.probability,
        probabilities=None if prediction.probabilities is unset else prediction.probabilities,
        event_at=said.event_at,
        arrived_at=_EPOCH + timedelta(microseconds=message.time),
        scored_at=now,
    )


def _is_one_body(model: ServedModel) -> bool:
    """Whether `{"rows": …}` is a row of the model, so that no body holds many."""
    return any(one.name == "rows" for one in model.decoder.inputs)


def _body(model: ServedModel, rows: Sequence[_Row]) -> bytes:
    if _is_one_body(model):
        return rows[0].said.row
    return b'{"rows":[' + b",".join([row.said.row for row in rows]) + b"]}"


def _request_id(message: Message) -> str:
    return f"stream-{message.partition}-{message.position}"
