"""Heads that are too large, too slow or none at all, written to the socket as no client library would."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPResponse

import httpx
import psutil
import pytest

from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

LIMIT = ServingSettings().header_bytes
BODY = json.dumps(ROW).encode()
GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict/%b HTTP/1.1\r\nHost: localhost\r\n" % MODEL.encode()
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(BODY), BODY)


def connected(server: Server) -> "closing[socket.socket]":
    host, port = server.url.removeprefix("http://").split(":")
    return closing(socket.create_connection((host, int(port)), 60))


def answers(server: Server, *pieces: bytes) -> list[tuple[int, bytes]]:
    """Status and body of what a server says to pieces that are sent one by one, until it closes the connection."""
    with connected(server) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:  # it has heard enough
                break
        return received(connection)


def received(connection: socket.socket) -> list[tuple[int, bytes]]:
    data, found = b"", []
    with suppress(ConnectionResetError):  # how a connection ends that was closed before all that was sent was read
        while part := connection.recv(2**16):
            data += part
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append((int(head.split()[1]), data[:length]))
        data = data[length:]
    return found


def rejected_early(server: Server) -> dict[str, float]:
    """Requests refused at the door by status, of all workers."""
    found = re.findall(
        r'^ml_platform_rejected_early_total\{status="(\d+)"\} (\S+)$', server.client.get("/metrics").text, re.M
    )
    return {status: float(count) for status, count in found}


def header_lines(size: int, *, each: int) -> bytes:
    """So many bytes of header lines of a certain length."""
    line = b"X-Line: %b\r\n" % (b"x" * (each - 10))
    assert len(line) == each
    return line * (size // each)


@pytest.fixture(autouse=True)
def _lives_on(server: Server) -> Iterator[None]:
    yield
    assert server.client.post(f"/predict/{MODEL}", json=ROW).status_code == 200
    assert psutil.Process(server.process.pid).memory_info().rss < 150 * 2**20


@pytest.mark.parametrize("each", [20, 1000, LIMIT // 2])
def test_a_head_just_below_the_limit_passes(server: Server, each: int) -> None:
    lines = header_lines(LIMIT - 100, each=each) + b"Connection: close\r\n\r\n"
    [(status, _)] = answers(server, GET + lines)
    assert status == 200
    length = b"Content-Length: %d\r\n" % len(BODY)
    [(status, _)] = answers(server, POST + length + lines + BODY)
    assert status == 200


LARGE = {
    "many lines": [GET + header_lines(2 * LIMIT, each=64), b"\r\n"],
    "many lines without end": [GET, *[header_lines(2**20, each=64)] * 50],
    "one line": [GET + b"X-Line: " + b"x" * 2 * LIMIT + b"\r\n\r\n"],
    "one line without end": [GET + b"X-Line: ", *[b"x" * 2**20] * 50],
    "one name without end": [GET, *[b"x" * 2**20] * 50],
    "one URL": [b"GET /" + b"x" * 2 * LIMIT + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    "one URL without end": [b"GET /", *[b"x" * 2**20] * 50],
    "just above the limit": [GET + header_lines(LIMIT, each=64) + b"\r\n"],
    "with a body": [POST + b"Content-Length: %d\r\n" % len(BODY) + header_lines(LIMIT, each=64) + b"\r\n" + BODY],
    "trailers": [CHUNKED + b"0\r\n", *[header_lines(2**20, each=64)] * 50],
    "a chunk's extension": [CHUNKED + b"1;", *[b"x" * 2**20] * 50],
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_head_above_the_limit_is_refused_and_not_kept(server: Server, kind: str) -> None:
    [(status, body)] = answers(server, *LARGE[kind])
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (431, "headers_too_large")
    assert error["message"] == f"the headers are larger than {LIMIT} bytes"
    assert error["request_id"]


def test_the_limit_counts_each_request_of_a_connection_for_itself(server: Server) -> None:
    lines = header_lines(LIMIT // 2, each=64)
    length = b"Content-Length: %d\r\n" % len(BODY)
    with connected(server) as connection:
        for _ in range(5):
            connection.sendall(POST + lines + length + b"\r\n" + BODY[:50])
            connection.sendall(BODY[50:])
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["model"]) == (200, MODEL)
        connection.sendall(GET + lines * 3)
        assert [status for status, _ in received(connection)] == [431]


def test_bodies_are_no_heads(server: Server) -> None:
    rows = json.dumps({"rows": [ROW] * 5000}).encode()
    assert len(rows) > 10 * LIMIT
    answer = server.client.post(f"/predict/{MODEL}", content=rows)
    assert len(answer.json()["predictions"]) == 5000
    pieces = (rows[start : start + 100] for start in range(0, len(rows), 100))  # each a chunk with a head of its own
    assert len(server.client.post(f"/predict/{MODEL}", content=pieces).json()["predictions"]) == 5000


@pytest.mark.parametrize(
    "text", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"hello there\r\n\r\n", CHUNKED + b"!"]
)
def test_what_is_no_http_is_told_so_in_the_shape_of_all_errors(server: Server, text: bytes) -> None:
    [(status, body)] = answers(server, text)
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_http")


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize("body", [b"Content-Length: %d\r\n\r\n" % len(GET), b"Transfer-Encoding: chunked\r\n\r\n"])
def test_the_body_of_a_request_that_asks_to_upgrade_is_no_request(server: Server, body: bytes) -> None:
    [(status, said)] = answers(server, POST + UPGRADE + body, GET + b"\r\n")
    assert (status, json.loads(said)["error"]["code"]) == (400, "upgrade_with_body")


@pytest.mark.parametrize("wish", [UPGRADE, WEBSOCKET])
def test_a_request_without_a_body_that_asks_to_upgrade_is_answered_as_ever(server: Server, wish: bytes) -> None:
    with connected(server) as connection:
        for asked in (GET + wish, GET):
            connection.sendall(asked + b"\r\n")
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["status"]) == (200, "live")


def test_what_is_refused_before_the_app_is_counted_over_all_workers(
    settings: Settings, serve: Callable[..., Server]
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--workers", "2")
    for _ in range(6):
        assert [status for status, _ in answers(server, b"hello there\r\n\r\n")] == [400]
    for _ in range(3):
        assert [status for status, _ in answers(server, *LARGE["many lines"])] == [431]
    assert rejected_early(server) == {"400": 6, "431": 3}
    server.wait_until(lambda client: "the headers are too large" in client.get("/").text)


def test_what_was_asked_for_before_is_answered_first(server: Server) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(BODY)
    (status, body), *others = answers(server, POST + length + BODY + b"no HTTP\r\n\r\n")
    assert (status, json.loads(body)["model"]) == (200, MODEL)
    assert [status for status, _ in others] == [400]  # the connection ends with it


def test_a_head_has_so_long_to_arrive(
    settings: Settings, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_HEADER_SECONDS", "2")
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    with connected(server) as silent, connected(server) as slow, httpx.Client(base_url=server.url, timeout=60) as kept:
        slow.settimeout(0.1)
        got = b""
        for byte in GET + b"X-Line: " + b"x" * 1000:
            try:
                slow.sendall(bytes([byte]))
                got += slow.recv(2**16)
            except TimeoutError:
                assert kept.post(f"/predict/{MODEL}", json=ROW).status_code == 200  # longer than any head may take
                continue
            except OSError:
                break
            if b"headers_too_slow" in got:
                break
        assert got.startswith(b"HTTP/1.1 408 ")
        assert rejected_early(server) == {"408": 1}
        assert received(silent) == []  # nothing was asked: a browser may open connections in advance


def test_a_connection_is_kept_for_so_long_without_a_request(
    settings: Settings, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_HEADER_SECONDS", "0.2")  # between two looks
    monkeypatch.setenv("ML_PLATFORM_SERVING_IDLE_SECONDS", "5")
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    asked = (GET + b"\r\n", POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    with connected(server) as connection:
        for message in asked * 2:
            sent = time.monotonic()
            connection.sendall(message)
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, len(answer.read()) > 0) == (200, True)
            time.sleep(0.5)  # several looks
        assert connection.recv(1) == b""
        assert time.monotonic() - sent > 5


def test_a_client_that_does_not_read_its_answers_is_not_waited_for(
    settings: Settings, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_SERVING_HEADER_SECONDS", "1")
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    worker = psutil.Process(server.process.pid)
    body = json.dumps({"rows": [ROW] * 5000}).encode()  # answered by half a megabyte
    asked = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        host, port = server.url.removeprefix("http://").split(":")
        deaf.connect((host, int(port)))
        own = deaf.getsockname()[1]
        deaf.sendall(GET + b"\r\n")
        assert deaf.recv(12) == b"HTTP/1.1 200"  # else it could be closed as one on which nothing was asked in time

        def is_open() -> bool:
            return any(one.raddr and one.raddr.port == own for one in worker.net_connections("tcp"))

        def ask_on() -> None:
            with suppress(OSError):  # it is cut off
                for _ in range(12):  # more than what the system keeps for a connection
                    deaf.sendall(asked)

        assert is_open()
        adapter = threading.Thread(target=ask_on)
        adapter.start()
        with connected(server) as reading:
            for _ in range(12):
                reading.sendall(asked)
                answer = HTTPResponse(reading)
                answer.begin()
                assert len(json.loads(answer.read())["predictions"]) == 5000
        server.wait_until(lambda _: not is_open())
        adapter.join()
