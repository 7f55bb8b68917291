"""Rows pushed to a feature view: checked against its columns, logged, and stored online before the answer is sent."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.features.online.push_log import Pushed, stream
from ml_platform.features.online.store import Definition, DefinitionChanged, OnlineStore, PushedRow, ViewSchema
from ml_platform.segment_log.segments import LogUnavailable, SegmentLog
from ml_platform.serving.bounded_worker import BoundedWorker
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.request_decoder import RowDecoder
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.prediction.predictor import INLINE_BYTES
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.suppression_list import SuppressionFile

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

logger = logging.getLogger("serving")


class PushAnswer(msgspec.Struct, kw_only=True):
    """Answer to a push."""

    view: str
    accepted: int  # rows; without those of entities that were erased
    stale: int  # of these, rows older than the online store's, which keeps its own; the feature table gets them
    request_id: str


class Pusher:
    """Takes rows for the views of the online store. One per worker."""

    def __init__(
        self,
        state: ServingState,
        online: OnlineStore,
        log: SegmentLog,
        metrics: Metrics,
        settings: ServingSettings,
        *,
        erased: Path,
    ) -> None:
        self._state = state
        self._online = online
        self._log = log
        self._metrics = metrics
        self._settings = settings
        self._small = BoundedWorker("push", settings.max_push_queue, settings)
        self._large = BoundedWorker("large push", settings.max_queue, settings)
        self._erased = SuppressionFile(erased)
        self._decoders: dict[str, tuple[ViewSchema, RowDecoder]] = {}

    async def push(self, view: str, body: bytes, request_id: str, caller: str | None) -> PushAnswer:
        """Check, log and store the rows of a body, in a thread: the online store may make a writer wait.

        Raises
        ------
        Refused
            No row was kept, unless the message says so.
        """
        turns = self._small if len(body) <= INLINE_BYTES else self._large
        answer: PushAnswer = await turns.submit(lambda: self._push(view, body, request_id, caller))
        self._metrics.pushed.labels(view).inc(answer.accepted)
        self._metrics.pushed_stale.labels(view).inc(answer.stale)
        return answer

    def count_refused(self, view: str, status: int) -> None:
        """Count a push that was answered with an error."""
        known = view if view in self._state.views else "unknown"
        self._metrics.pushes_refused.labels(known, str(status)).inc()

    def queues(self) -> dict[str, int]:
        """Number of pushes that each thread works on or has waiting."""
        return {"push": self._small.queued, "large push": self._large.queued}

    def close(self) -> None:
        """Finish the pushes that wait."""
        self._small.close()
        self._large.close()

    def _push(self, view: str, body: bytes, request_id: str, caller: str | None) -> PushAnswer:
        now = datetime.now(UTC)
        definition, schema = self._definition(view)
        try:
            rows = self._decoder(view, schema).decode(body).values
            self._check_times(rows, schema.event_time, now)
        except InvalidRequest as invalid:
            raise Refused.of(invalid) from invalid
        if (erased := self._erased.read()) is not None:
            names = [field.name for field in schema.entity]
            rows = [row for row in rows if not erased.holds((name, row[name]) for name in names)]
            if not rows:
                return PushAnswer(view=view, accepted=0, stale=0, request_id=request_id)
        types = {field.name: field.type for field in schema.fields}
        record = Pushed(
            request_id=request_id,
            view=view,
            view_hash=definition.hash,
            time=now,
            caller=caller,
            types=dict(types),
            rows=[[_plain(row[name]) for name in types] for row in rows],
        )
        try:
            self._log.append(stream(view, definition.hash), [record])
        except LogUnavailable as error:
            logger.error("pushes to %s are refused: %s", view, error)
            message = f"not accepted, because it cannot be logged: {error.reason}"
            raise Refused(503, "log_unavailable", message, retry_after=5) from error
        stale = self._store(view, definition.hash, [_pushed_row(row, schema) for row in rows])
        return PushAnswer(view=view, accepted=len(rows), stale=stale, request_id=request_id)

    def _definition(self, view: str) -> tuple[Definition, ViewSchema]:
        """The online store's definition and schema of a view (raises Refused for a view that takes no rows)."""
        try:
            definition = self._online.definition(view)
            known = self._online.views() if definition is None else []
            if definition is None and not self._online.exists():
                raise FileNotFoundError("there is none")
        except Exception as error:
            logger.error("the online store cannot be read: %s", error)
            message = f"not accepted: the online store cannot be read: {type(error).__name__}"
            raise Refused(503, "online_store_failed", message, retry_after=1) from error
        if definition is None:
            names = ", ".join(known) or "none yet; materialise online/<view> first"
            raise Refused(404, "unknown_view", f"no feature view '{view}' is in the online store; there are: {names}")
        if definition.schema is None:
            message = (
                f"the online store does not know the columns of '{view}', so rows cannot be checked: materialise "
                f"online/{view} again; its entity columns must be text, whole numbers, booleans or timestamps"
            )
            raise Refused(409, "view_not_described", message)
        self._check_models(view, definition.hash)
        return definition, definition.schema

    def _check_models(self, view: str, found: str) -> None:
        """Refuse rows while a served model was trained on another definition of the view."""
        for slot in self._state.slots.values():
            for model in (*slot.served, *slot.shadows):
                for lookup in model.manifest.lookups:
                    if lookup.view == view and lookup.view_hash != found:
                        message = (
                            f"'{view}' is {found[:12]} in the online store, version {model.version} of {model.name} "
                            f"was trained on {lookup.view_hash[:12]}: train it again, or materialise online/{view} "
                            "from the definition it was trained on"
                        )
                        raise Refused(409, "view_changed", message, retry_after=5)

    def _decoder(self, view: str, schema: ViewSchema) -> RowDecoder:
        known = self._decoders.get(view)
        if known is None or known[0] != schema:
            features = frozenset(column.name for column in schema.columns)
            known = self._decoders[view] = (schema, RowDecoder(schema.fields, nullable=features))
        return known[1]

    def _check_times(self, rows: Sequence[dict[str, Any]], name: str, now: datetime) -> None:
        """Refuse rows from the future: with a wrong clock, one would hide all later rows (raises InvalidRequest)."""
        seconds = self._settings.push_ahead_seconds
        latest = now + timedelta(seconds=seconds)
        problems = [
            Problem(
                number if len(rows) > 1 else None,
                name,
                f"wanted at most {seconds:g} seconds ahead of the server's clock ({now:%Y-%m-%dT%H:%M:%SZ}), "
                f"found {row[name].isoformat()}",
            )
            for number, row in enumerate(rows)
            if row[name] > latest
        ]
        if problems:
            raise InvalidRequest(422, problems)

    def _store(self, view: str, view_hash: str, rows: Sequence[PushedRow]) -> int:
        """Write logged rows to the online store; return how many were older than what it held (raises Refused)."""
        try:
            return self._online.push(view, view_hash, rows)
        except DefinitionChanged as changed:
            message = f"not accepted: {changed}; send the rows again, with the columns that /openapi.json now lists"
            raise Refused(409, "view_changed", message, retry_after=1) from changed
        except Exception as error:
            logger.error("the online store cannot be written: %s", error)
            message = (
                "the rows are logged for the feature table, but the online store could not be written "
                f"({type(error).__name__}): send them again, which duplicates nothing"
            )
            raise Refused(503, "online_store_failed", message, retry_after=1) from error


def _pushed_row(row: dict[str, Any], schema: ViewSchema) -> PushedRow:
    key = tuple([row[field.name] for field in schema.entity])
    return PushedRow(key, row[schema.event_time], tuple([row[field.name] for field in schema.columns]))


def _plain(value: Any) -> Any:
    return (value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else value
