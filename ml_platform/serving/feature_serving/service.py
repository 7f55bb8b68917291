"""Looks up features for requests of all protocols: which plan, which rows, and what is counted."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from ml_platform.features.online.store import Definition, OnlineStore
from ml_platform.features.services.lookup import ViewValues, look_up
from ml_platform.features.services.plan import (
    DefinitionMoved,
    LookupPlan,
    NotServable,
    plan_service,
    plan_view,
)
from ml_platform.registry.feature_services import FeatureService
from ml_platform.registry.input_contract import Contract
from ml_platform.serving.access.masking import Masking, check_instant, mask_values
from ml_platform.serving.bounded_worker import BoundedWorker
from ml_platform.serving.feature_serving.responses import Found
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.request_decoder import RowDecoder
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed, StoreReads
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics

INLINE_BYTES = 2**14  # some 800 rows, 10 ms of work: a larger body would keep other requests waiting
_TRIES = 5  # while definitions change under the hands of a request
_TOLD = 10  # names in a message

T = TypeVar("T")

logger = logging.getLogger("serving")


class Prepared(NamedTuple):
    """A plan, with what reads its requests."""

    plan: LookupPlan
    decoder: RowDecoder
    contract: Contract | None
    of: tuple[FeatureService | None, Mapping[str, Definition]]  # what it was made from


class FeatureServing:
    """Gives out features of the views and services that a worker knows. One per worker."""

    def __init__(
        self, state: ServingState, online: OnlineStore, metrics: Metrics, settings: ServingSettings, masking: Masking
    ) -> None:
        self.state = state
        self._masking = masking
        self._reads = StoreReads(online)
        self._metrics = metrics
        self._worker = BoundedWorker("feature look-up", settings.max_queue, settings)
        self._prepared: dict[str, Prepared] = {}

    def is_service(self, name: str) -> bool:
        """Whether a published service has this name."""
        return name in self.state.services or name in self.state.services_refused

    def names(self) -> list[str]:
        """Names of all services and views, sorted."""
        return sorted({*self.state.services, *self.state.services_refused, *self.state.views})

    def prepared(self, name: str) -> Prepared:
        """How a view or service is looked up now.

        Raises
        ------
        Refused
            404 for an unknown name, 409 where the online store does not fit, 503 where it cannot be read or the
            service's document is damaged.
        """
        service = self.state.services.get(name)
        known = self._prepared.get(name)
        if known is not None and known.of[0] is service:
            seen = self.state.views
            if all(seen.get(view) is definition for view, definition in known.of[1].items()):
                return known
        return self.prepare_anew(name)

    def prepare_anew(self, name: str) -> Prepared:
        """Do what `prepared` does from what the store holds at this moment (raises Refused)."""
        service = self.state.services.get(name)
        if service is None and (reason := self.state.services_refused.get(name)) is not None:
            raise Refused(503, "service_unavailable", f"feature service '{name}' is not served: {reason}")
        views = [name] if service is None else list(dict.fromkeys(one.view for one in service.views))
        definitions = self._definitions(views)
        if service is None and not definitions:
            raise self._unknown(name)
        known = self._prepared.get(name)
        if known is not None and known.of == (service, definitions):  # the watcher has not seen them yet, or has now
            prepared = known._replace(of=(service, definitions))
        else:
            prepared = _prepared(name, service, definitions)
        self._prepared[name] = prepared
        return prepared

    async def in_turn(self, size: int, work: Callable[[], T]) -> T:
        """Do the whole work of a request: at once for a body of few bytes, else in a thread (raises Refused)."""
        if size <= INLINE_BYTES:
            return work()
        result: T = await self._worker.submit(work)
        return result

    def find(
        self,
        name: str,
        body: bytes,
        *,
        caller: object,
        derived: bool = False,
        as_of: datetime | None = None,
        rows: Callable[[bytes, Prepared], bytes] | None = None,
    ) -> Found:
        """Decode a body and look its rows up.

        Parameters
        ----------
        name
            The view or service.
        body
            One row as an object, or `{"rows": [...]}`.
        caller
            Who asks, `RequestContext.key`: what is masked for it is null.
        derived
            Whether request features are wanted.
        as_of
            Instant from which ages and TTLs count, and after which nothing was known; now when None.
        rows
            Translates a body of another protocol into such a one; it may raise InvalidRequest.

        Raises
        ------
        Refused
            When the body does not fit, rows of a view are hidden from the caller, or it cannot be answered now.
        """
        for attempt in range(_TRIES):
            prepared = self.prepared(name) if not attempt else self.prepare_anew(name)
            try:
                plain = body if rows is None else rows(body, prepared)
                values = prepared.decoder.decode(plain).values
            except InvalidRequest as invalid:
                raise Refused.of(invalid) from invalid
            if prepared.contract is not None:
                for number, row in enumerate(values):
                    prepared.contract.check_row(row, number)  # puts defaults in the place of nulls
            try:
                return self.look_up(prepared.plan, values, caller=caller, derived=derived, as_of=as_of)
            except DefinitionMoved:
                continue
        raise moved(name)

    def count(self, found: Found, seconds: float) -> None:
        """Count what was answered, and how long it took."""
        name, metrics = found.plan.name, self._metrics
        metrics.lookup_rows.labels(name).inc(len(found.rows))
        metrics.lookup_seconds.labels(name).observe(seconds)
        for view in found.views:
            for status in set(view.status):
                metrics.lookup_keys.labels(name, view.view.name, status).inc(view.status.count(status))

    def count_request(self, name: str, status: int) -> None:
        """Count a request by its answer's status."""
        is_known = name in self._prepared or name in self.state.views or self.is_service(name)
        self._metrics.lookups.labels(name if is_known else "unknown", str(status)).inc()

    def queues(self) -> dict[str, int]:
        """Number of look-ups that the thread works on or has waiting."""
        return {"feature look-up": self._worker.queued}

    def close(self) -> None:
        """Finish the look-ups that wait."""
        self._worker.close()

    def look_up(
        self,
        plan: LookupPlan,
        rows: Sequence[dict[str, Any]],
        *,
        caller: object,
        derived: bool = False,
        as_of: datetime | None = None,
    ) -> Found:
        """Look up decoded rows by a plan (raises Refused, DefinitionMoved)."""
        accesses = self._masking.accesses(caller, (view.view for view in plan.views))
        if as_of is not None:
            check_instant(accesses)
        if derived or plan.is_keyed_by_derived:
            for number, row in enumerate(rows):
                try:
                    plan.derive(row)
                except (ValueError, ArithmeticError) as error:
                    problem = Problem(
                        number if len(rows) > 1 else None, None, f"features cannot be derived from it: {error}"
                    )
                    raise Refused.of(InvalidRequest(422, [problem])) from error
        now = as_of or datetime.now(UTC)
        try:
            views: Sequence[ViewValues] = look_up(plan, rows, self._reads.read, now, strict=as_of is not None)
        except OnlineStoreFailed as failed:
            raise _store_failed(failed) from failed
        masked: list[str] = []
        if accesses:
            views, masked = mask_values(views, accesses)
        return Found(plan=plan, time=now, rows=rows, views=views, with_derived=derived, masked=masked)

    def _definitions(self, views: Sequence[str]) -> dict[str, Definition]:
        """Definitions of views: the very objects that were seen last, where the store still has the same.

        Raises
        ------
        Refused
            503 when the store cannot be read.
        """
        try:
            stored = self._reads.definitions(views)
        except OnlineStoreFailed as failed:
            raise _store_failed(failed) from failed
        seen = self.state.views
        return {view: seen[view] if seen.get(view) == one else one for view, one in stored.items()}

    def _unknown(self, name: str) -> Refused:
        """Refuse a name that neither a view nor a service has."""
        known = self.names()
        more = f" and {len(known) - _TOLD:,} more" if len(known) > _TOLD else ""
        listed = f"{', '.join(known[:_TOLD])}{more}" if known else "none yet; materialise online/<view> first"
        message = f"no feature view or service '{name[:80]}' is here; there are: {listed}"
        return Refused(404, "unknown_view", message)


def _prepared(name: str, service: FeatureService | None, definitions: Mapping[str, Definition]) -> Prepared:
    """Make a plan (raises Refused)."""
    try:
        plan = plan_view(name, definitions[name]) if service is None else plan_service(service, definitions)
    except NotServable as reason:
        raise Refused(409, "view_changed", str(reason), retry_after=5) from reason
    decoder = RowDecoder(plan.fields, nullable=plan.nullable)
    return Prepared(plan, decoder, Contract.flagging(plan.fields), (service, definitions))


def _store_failed(failed: OnlineStoreFailed) -> Refused:
    return Refused(503, "online_store_failed", f"not answered: {failed}", retry_after=1)


def moved(name: str) -> Refused:
    """Refuse, since definitions changed under a request again and again."""
    message = f"the definitions of '{name}' changed again and again while it was looked up: try again"
    return Refused(503, "view_changed", message, retry_after=1)
