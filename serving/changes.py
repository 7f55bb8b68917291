"""Changes of what serves, asked for over HTTP: the release store is written here, ledger and registry follow later."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
from starlette.requests import Request

from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import DocumentUnreadable, ReleaseConflict, ReleaseStore, is_name
from ml_platform.registry.traffic import TrafficChange, set_traffic, withdraw
from serving.asking import Asking, caller_of, check_head
from serving.wire import Refused

T = TypeVar("T")
Body = TypeVar("Body", bound=msgspec.Struct)
_ROLE = "promote"


class Changes:
    """What the routes that change endpoints have in common."""

    def __init__(self, asking: Asking, store: ReleaseStore) -> None:
        self.asking = asking
        self.store = store

    async def read(self, request: Request, kind: type[Body]) -> Body:
        """Read a body of JSON (raises Refused)."""
        check_head(request)
        # A page of another site may post a form here without asking, but no JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "unsupported_type", "send application/json", close=True)
        body = await self.asking.body(request)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            raise Refused(422, "invalid_request", f"the body does not fit: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from error

    async def document(self, name: str) -> Endpoint | None:
        """The newest document of an endpoint, None before the first and for what can be no name (raises Refused)."""
        return await self._told(lambda: self.store.document(name)) if is_name(name) else None

    async def documents(self) -> dict[str, Endpoint]:
        """Every endpoint's newest document, but for those that cannot be read and show as refused (raises Refused)."""
        return await self._told(self._readable)

    async def first(self, name: str) -> Endpoint | None:
        """The document by which an endpoint was made; None where that is not known any more."""

        def read() -> Endpoint | None:
            with suppress(DocumentUnreadable):
                return self.store.first(name)
            return None

        return await self._told(read) if is_name(name) else None

    async def versions(self, model: str) -> dict[int, str]:
        """Bundles of the versions that may serve (raises Refused)."""
        return await self._told(lambda: self.store.versions(model)) if is_name(model) else {}

    async def set(self, request: Request, name: str, change: TrafficChange, reason: str) -> Endpoint:
        """Set the targets of an endpoint (raises Refused)."""
        current = await self.document(name)
        self._check_role(request, change.model or (current.model if current else name))
        by = _by(request)
        return await self._told(lambda: set_traffic(self.store, name, change, by=by, reason=reason))

    async def withdraw(self, request: Request, name: str, reason: str) -> Endpoint:
        """Take an endpoint out of service (raises Refused)."""
        current = await self.document(name)
        if current is None or not current.targets:
            raise Refused(404, "unknown_endpoint", f"no endpoint '{name[:80]}' is in service")
        self._check_role(request, current.model)
        by = _by(request)
        return await self._told(
            lambda: withdraw(self.store, name, by=by, reason=reason, expected_revision=current.revision)
        )

    @staticmethod
    def _check_role(request: Request, model: str) -> None:
        """An endpoint of a name of its own serves a model that the key must be for, too (raises Refused)."""
        key = request.scope.get("key")
        if key is not None and not key.may(_ROLE, model):
            raise Refused(403, "forbidden", "this key is not for the model that the endpoint serves")

    def _readable(self) -> dict[str, Endpoint]:
        found = {}
        for name in self.store.names():
            with suppress(DocumentUnreadable):
                if (document := self.store.document(name)) is not None:
                    found[name] = document
        return found

    async def _told(self, work: Callable[[], T]) -> T:
        """Do what reads and writes files in a thread, and say what became of it as an answer."""
        try:
            return await asyncio.to_thread(work)
        except ReleaseConflict as error:
            raise Refused(412, "revision_conflict", str(error)) from error
        except DocumentUnreadable as error:
            told = f"the release store is damaged: {self.store.said(error)}"
            raise Refused(503, "release_store_unavailable", told, retry_after=5) from error
        except (ValueError, LookupError, BundleRefused) as error:
            raise Refused(422, "invalid_request", self.store.said(error)) from error
        except OSError as error:
            told = f"the release store cannot be used: {error.strerror}"
            raise Refused(503, "release_store_unavailable", told, retry_after=5) from error


def _by(request: Request) -> str:
    return f"{caller_of(request)} (HTTP)"
