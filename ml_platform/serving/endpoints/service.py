"""Changes of endpoints over HTTP: they are written to the release store now; ledger and registry are updated later."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from ml_platform.registry.approvals import ApprovalRequest, NotApproved
from ml_platform.registry.approved_release import Answered, answer_and_release
from ml_platform.registry.canary import read_report
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.history import Reign, origins_of, reign_at, reigns
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseConflict, ReleaseStore, is_name
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.registry.traffic import TrafficChange, set_traffic, withdraw
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.prediction.route_adapter import RouteAdapter

T = TypeVar("T")
Body = TypeVar("Body", bound=msgspec.Struct)
HISTORY = 100  # states that one answer tells, the newest
_ROLE = "promote"


class EndpointService:
    """What the routes that show and change endpoints share."""

    def __init__(self, adapter: RouteAdapter, store: ReleaseStore) -> None:
        self.adapter = adapter
        self.store = store

    async def read(self, request: Request, kind: type[Body]) -> Body:
        """Read a JSON body (raises Refused)."""
        RequestContext.of(request.scope).check()
        # Browsers let a page of another site post a form here, but not JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "unsupported_type", "send application/json", close=True)
        body = await self.adapter.body(request)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            raise Refused(422, "invalid_request", f"the body does not fit: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from error

    async def document(self, name: str) -> Endpoint | None:
        """The newest document of an endpoint, None when it has none or the name is invalid (raises Refused)."""
        return await self.in_store(lambda: self.store.document(name)) if is_name(name) else None

    async def documents(self) -> dict[str, Endpoint]:
        """Every endpoint's newest document, except those that cannot be read and show as refused (raises Refused)."""
        return await self.in_store(lambda: self.store.readable_documents()[0])

    async def walk(self, document: Endpoint) -> dict[str, Any] | None:
        """The canary walk that a document is a step or the end of, with what was last found; None without one."""
        canary = document.canary
        if canary is None:
            return None
        report = await self.in_store(lambda: read_report(self.store, document))
        return {
            "version": canary.version,
            "state": canary.state,
            "percent": canary.percent,
            "step": canary.step + 1,
            "steps": canary.policy.steps,
            "started_at": canary.started_at,
            "started_by": canary.started_by,
            "report": report,
        }

    async def first(self, name: str) -> Endpoint | None:
        """The first document of an endpoint; None when it cannot be found or read."""

        def read() -> Endpoint | None:
            with suppress(DocumentUnreadable):
                return self.store.first(name)
            return None

        return await self.in_store(read) if is_name(name) else None

    async def history(self, name: str, at: datetime | None) -> list[tuple[Reign, dict[int, dict[str, Any]]]]:
        """States of an endpoint, newest first, at most `HISTORY`, with what made each version; one state with `at`.

        None before the first release (raises Refused).
        """

        def read() -> list[tuple[Reign, dict[int, dict[str, Any]]]]:
            if at is not None:
                reign = reign_at(self.store, name, at)
                states = [reign] if reign else []
            else:
                states = reigns(self.store, name)[: -HISTORY - 1 : -1]
            return [(state, origins_of(self.store, state.document)) for state in states]

        return await self.in_store(read) if is_name(name) else []

    async def approvals(self, model: str) -> list[ApprovalRequest]:
        """Requests of a model's versions to serve, answered or not (raises Refused)."""
        return await self.in_store(lambda: self.store.approvals.all(model)) if is_name(model) else []

    async def answer(self, model: str, version: int, *, by: str, approve: bool, comment: str) -> Answered:
        """Approve or reject a version that waits; an approved one serves from then on.

        Raises
        ------
        Refused
            When nobody asked for it, or its bundle is damaged; 409 when this person may not answer, or it is too late.
        """
        if not is_name(model):
            raise Refused(404, "unknown_endpoint", f"there is no model '{model[:80]}'")
        if await self.in_store(lambda: self.store.approvals.get(model, version)) is None:
            raise Refused(404, "unknown_version", f"nobody asked for an approval of {model} version {version}")
        return await self.in_store(
            lambda: answer_and_release(self.store, model, version, by=by, approve=approve, comment=comment)
        )

    async def versions(self, model: str) -> dict[int, str]:
        """Digests of the versions in the release store, by number (raises Refused)."""
        return await self.in_store(lambda: self.store.versions(model)) if is_name(model) else {}

    async def set(self, request: Request, name: str, change: TrafficChange, reason: str) -> Endpoint:
        """Set the targets of an endpoint (raises Refused)."""
        current = await self.document(name)
        self._check_role(request, change.model or (current.model if current else name))
        by = _by(request)
        return await self.in_store(lambda: set_traffic(self.store, name, change, by=by, reason=reason))

    async def withdraw(self, request: Request, name: str, reason: str) -> Endpoint:
        """Take an endpoint out of service (raises Refused)."""
        current = await self.document(name)
        if current is None or not current.targets:
            raise Refused(404, "unknown_endpoint", f"no endpoint '{name[:80]}' is in service")
        self._check_role(request, current.model)
        by = _by(request)
        return await self.in_store(
            lambda: withdraw(self.store, name, by=by, reason=reason, expected_revision=current.revision)
        )

    @staticmethod
    def _check_role(request: Request, model: str) -> None:
        """Check that the key may promote the model behind an endpoint, which may have another name (raises Refused)."""
        key = RequestContext.of(request.scope).key
        if key is not None and not key.may(_ROLE, model):
            raise Refused(403, "forbidden", "this key is not for the model that the endpoint serves")

    async def in_store(self, work: Callable[[], T]) -> T:
        """Read or write the release store in a thread, and turn its errors into answers (raises Refused)."""
        try:
            return await asyncio.to_thread(work)
        except NotApproved as error:
            raise Refused(409, "not_approved", str(error)) from error
        except ReleaseConflict as error:
            raise Refused(412, "revision_conflict", str(error)) from error
        except DocumentUnreadable as error:
            message = f"the release store is damaged: {self.store.said(error)}"
            raise Refused(503, "release_store_unavailable", message, retry_after=5) from error
        except (ValueError, LookupError, BundleRefused) as error:
            raise Refused(422, "invalid_request", self.store.said(error)) from error
        except OSError as error:
            message = f"the release store cannot be used: {error.strerror}"
            raise Refused(503, "release_store_unavailable", message, retry_after=5) from error


def _by(request: Request) -> str:
    return f"{RequestContext.of(request.scope).caller} (HTTP)"
