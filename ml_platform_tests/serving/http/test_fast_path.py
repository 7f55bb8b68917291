"""The short cut answers what the ordinary way would: whole, in parts, one after another, and whatever is wrong."""

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from ml_platform.governance.keys import KeyStore
from ml_platform.serving.http.fast_path import AT_ONCE, PromptProtocol
from ml_platform.serving.http.messages import CLOSE, Reply
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish
from ml_platform_tests.serving.sockets import wait_until_read

BODY = json.dumps(ROW).encode()


async def plain_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers "ordinary" and the body, /slow after a while; its state answers all but /slow and GET at once."""
    if scope["type"] == "lifespan":
        await receive()
        scope["state"][AT_ONCE] = answer_at_once
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.1)  # what is sent after it arrives meanwhile
    content = b"ordinary " + body
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def answer_at_once(scope: Any, body: bytes) -> Reply | None:
    if scope["path"] == "/slow" or scope["method"] == "GET":
        return None
    content = b"at once " + body
    headers = [(b"content-length", str(len(content)).encode())]
    return Reply(200, [*headers, CLOSE] if scope["path"] == "/last" else headers, content)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(plain_app, port=0, http=PromptProtocol, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(120)


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read(raw: socket.socket, answers: int) -> list[bytes]:
    """Bodies of so many answers."""
    data = b""
    found: list[bytes] = []
    while len(found) < answers:
        head, mark, rest = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if mark and head.startswith(b"HTTP/1.1 100"):
            data = rest
        elif mark and len(rest) >= length:
            found.append(rest[:length])
            data = rest[length:]
        else:
            part = raw.recv(65536)
            assert part, data
            data += part
    return found


def ask(port: int, *parts: bytes, answers: int = 1) -> list[bytes]:
    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        for part in parts:
            raw.sendall(part)
            wait_until_read(raw)  # else the next could come with it
        return read(raw, answers)


def test_what_came_whole_is_answered_at_once_and_what_the_application_leaves_is_not(port: int) -> None:
    assert ask(port, post("/quick", b"1")) == [b"at once 1"]
    assert ask(port, post("/slow", b"1")) == [b"ordinary 1"]
    assert ask(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") == [b"ordinary "]


def test_what_comes_in_parts_goes_the_ordinary_way(port: int) -> None:
    whole = post("/quick", b"12345")
    for cut in (3, len(whole) - 5, len(whole) - 2):
        (found,) = ask(port, whole[:cut], whole[cut:])
        assert found in ((b"ordinary 12345",) if cut >= len(whole) - 5 else (b"at once 12345",))
    expecting = post("/quick", b"", "Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 2")
    assert ask(port, expecting, b"ok") == [b"ordinary ok"]
    chunked = b"POST /quick HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
    assert ask(port, chunked + b"0\r\n\r\n") == [b"at once ab"]
    assert ask(port, chunked, b"0\r\n\r\n") == [b"ordinary ab"]


def test_requests_on_one_connection_are_answered_in_their_order(port: int) -> None:
    paths = ["/quick", "/slow", "/quick", "/quick", "/slow", "/quick"]
    requests = [post(path, str(number).encode()) for number, path in enumerate(paths)]
    for found in (ask(port, b"".join(requests), answers=6), ask(port, *requests, answers=6)):
        assert [answer.split()[-1] for answer in found] == [b"0", b"1", b"2", b"3", b"4", b"5"]
        assert found[0] == b"at once 0"
    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        for request in requests:  # the next is sent when the one before is answered
            raw.sendall(request)
            (last,) = read(raw, 1)
    assert last == b"at once 5"


@pytest.mark.parametrize(
    "request_text",
    [post("/quick", b"1", "Connection: close"), post("/quick", b"1", version="1.0"), post("/last", b"1")],
    ids=["asked for", "of HTTP/1.0", "by the application"],
)
def test_a_connection_is_closed_when_it_should_be(port: int, request_text: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        raw.sendall(request_text)
        data = b""
        while part := raw.recv(65536):
            data += part
    assert data.endswith(b"\r\n\r\nat once 1")
    assert data.lower().count(b"connection: close") == 1


def test_a_client_that_reads_nothing_does_not_fill_the_memory(port: int) -> None:
    request = post("/quick", b"x" * 60_000)
    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        raw.setblocking(False)
        sent, stuck = 0, 0
        while stuck < 50 and sent < 100 * 2**20:
            try:
                sent += raw.send(request[sent % len(request) :])
                stuck = 0
            except BlockingIOError:
                stuck += 1
                time.sleep(0.01)
    assert stuck
    assert ask(port, post("/quick", b"1")) == [b"at once 1"]


def test_both_ways_answer_alike(server: Server, module_settings: Settings) -> None:
    port = int(server.url.rpartition(":")[2])
    bodies = [BODY, b"{", b"{}", b'{"rows": []}', json.dumps({"rows": [ROW] * 3}).encode(), b"", BODY[:-1] + b',"x":1}']
    for model in (MODEL, "other"):
        for body in bodies:
            request = post(f"/predict/{model}", body, "X-Request-ID: same")
            whole, halves = ask(port, request)[0], ask(port, request[:-1], request[-1:])[0] if body else None
            assert halves is None or whole == halves
    logged = "".join(path.read_text() for path in module_settings.inference_log_dir.glob("*/*.jsonl"))
    assert logged.count('"request_id":"same"') == 2 * (1 + 3)


def test_an_address_that_a_proxy_tells_counts(server: Server, module_settings: Settings) -> None:
    headers = {"X-Forwarded-For": "203.0.113.7"}
    answer = server.client.post(f"/predict/{MODEL}", json=ROW, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "no_keys")


def test_the_short_cut_is_guarded_as_the_ordinary_way_is(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    store = KeyStore(settings.keys_dir)
    key, token = store.create("job", roles=["predict"], models=[MODEL])
    _, slow = store.create("slow", roles=["predict"], rate=0.001, burst=3)
    server = serve(settings)
    port = int(server.url.rpartition(":")[2])

    def status(*headers: str, model: str = MODEL, host: str = "localhost") -> int:
        with socket.create_connection(("127.0.0.1", port), 60) as raw:
            raw.sendall(post(f"/predict/{model}", BODY, *headers).replace(b"localhost", host.encode()))
            return int(raw.recv(65536).split()[1])

    known = f"Authorization: Bearer {token}"
    assert [status(known) for _ in range(3)] == [200, 200, 200]
    assert status(known, "X-Forwarded-For: 203.0.113.7") == 200
    assert (status(), status(known + "x"), status(known, model="other")) == (401, 401, 403)
    assert status(known, host="evil.example") == 421
    assert [status(f"X-API-Key: {slow}") for _ in range(5)] == [200, 200, 200, 429, 429]
    store.revoke(key.id)
    server.wait_until(lambda _: status(known) == 401)
    server.stop()
    lines = [json.loads(line) for path in settings.audit_dir.glob("*.jsonl") for line in path.read_text().splitlines()]
    told = Counter((line.get("name"), line["status"]) for line in lines if line.get("path", "").startswith("/predict"))
    assert told[("job", 200)] >= 4
    assert (told[("slow", 200)], told[("slow", 429)], told[("job", 403)]) == (3, 2, 1)
    assert told[(None, 401)] >= 3
