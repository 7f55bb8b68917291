"""Passes GraphQL subscriptions on by WebSocket: each message of the client is read, judged, and written anew."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from ml_platform.login.graphql_document import GraphQLRefused, request_of
from ml_platform.login.request_checks import Connection

PROTOCOL = "graphql-ws"
SIGN_IN, REFUSED, AWAY = 4401, 4403, 1013  # codes by which a connection is closed
RECHECK_SECONDS = 5.0
_PLAIN = frozenset({"connection_init", "connection_terminate", "stop"})
_MOST_BYTES = 2**20  # of a message of the client
_OPEN_SECONDS = 20.0
# Dagster reads the name of the operation from `operation_name`, its page sends `operationName`.
_NAMES = ("operationName", "operation_name")

OnRefused = Callable[[str], None]


class MessageRefused(ValueError):
    """A message that is not passed on."""


def judged(text: str) -> str:
    """A client's message as it may be passed on.

    Raises
    ------
    MessageRefused
        For anything but a subscription or a query, and what belongs to one: changes are sent by POST.

    Examples
    --------
    >>> judged('{"type": "stop", "id": "1", "more": 2}')
    '{"type": "stop", "id": "1"}'
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageRefused("a message is not JSON") from None
    if not isinstance(message, dict):
        raise MessageRefused("a message is no object")
    kind, identifier = message.get("type"), message.get("id")
    if identifier is not None and not isinstance(identifier, str | int):
        raise MessageRefused("an id is no text")
    if not isinstance(kind, str):
        raise MessageRefused("a message has no type")
    kept: dict[str, Any] = {"type": kind} | ({} if identifier is None else {"id": identifier})
    if kind in _PLAIN:
        return json.dumps(kept | ({"payload": {}} if kind == "connection_init" else {}))
    payload = message.get("payload")
    if kind != "start" or not isinstance(payload, dict):
        raise MessageRefused(f"a message of type {kind[:40]!r} is not accepted")
    try:
        read = request_of(payload)
    except GraphQLRefused as error:
        raise MessageRefused(str(error)) from None
    if read.document.mutations:
        raise MessageRefused(f"changes are sent by POST: {', '.join(sorted(read.document.mutations))}")
    names = {name: payload[name] for name in _NAMES if isinstance(payload.get(name), str)}
    return json.dumps(kept | {"payload": json.loads(read.body) | names})


async def close(client: Connection, code: int, reason: str) -> None:
    """Accept a connection and close it, so that the page learns why; an unaccepted one tells it nothing."""
    _, receive, send = client
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": code, "reason": _short(reason)})


def _short(reason: str) -> str:
    """A reason as a closing frame takes it: 123 bytes of UTF-8."""
    return reason.encode("ascii", "replace")[:120].decode()


async def pass_on(
    address: str,
    headers: Sequence[tuple[str, str]],
    client: Connection,
    *,
    is_signed_in: Callable[[], bool],
    on_refused: OnRefused,
) -> None:
    """Connect a client with the server behind until one of them hangs up or the session ends.

    Parameters
    ----------
    address
        The server's own, `ws://…`.
    headers
        What it gets beside the protocol's own.
    is_signed_in
        Whether the client's session still stands; asked at each message and every few seconds.
    on_refused
        Called with the reason before the connection is closed for a message.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, WebSocketException
    from websockets.typing import Subprotocol

    scope, receive, send = client
    if PROTOCOL not in scope.get("subprotocols", []):
        await close(client, REFUSED, f"the protocol {PROTOCOL} is spoken here")
        return
    try:
        upstream = await connect(
            address,
            subprotocols=[Subprotocol(PROTOCOL)],
            additional_headers=list(headers),
            max_size=None,
            open_timeout=_OPEN_SECONDS,
            proxy=None,
        )
    except (OSError, WebSocketException, TimeoutError):
        await close(client, AWAY, "the server behind does not answer")
        return

    async def from_client() -> tuple[int, str]:
        while True:
            message = await receive()
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
                continue
            if message["type"] == "websocket.disconnect":
                return 0, ""
            text = message.get("text")
            if not is_signed_in():
                return SIGN_IN, "sign in again"
            try:
                if text is None or len(text) > _MOST_BYTES:
                    raise MessageRefused("a message is too long, or no text")
                passed = judged(text)
            except MessageRefused as error:
                on_refused(str(error))
                return REFUSED, str(error)
            await upstream.send(passed)

    async def from_server() -> tuple[int, str]:
        async for message in upstream:
            await send({"type": "websocket.send", "text": message if isinstance(message, str) else message.decode()})
        return 1000, ""

    async def session_end() -> tuple[int, str]:
        while is_signed_in():
            await asyncio.sleep(RECHECK_SECONDS)
        return SIGN_IN, "sign in again"

    tasks = [asyncio.create_task(work()) for work in (from_client, from_server, session_end)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        failed = [task.exception() for task in done if task.exception() is not None]
        unexpected = [error for error in failed if not isinstance(error, ConnectionClosed)]
        if unexpected and unexpected[0] is not None:
            raise unexpected[0]
        code, reason = (AWAY, "the server behind has hung up") if failed else next(iter(done)).result()
        if code:
            await send({"type": "websocket.close", "code": code, "reason": _short(reason)})
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await upstream.close()
