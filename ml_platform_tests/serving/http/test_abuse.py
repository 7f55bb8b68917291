"""What is sent to break a server: each piece gets the fitting 4xx in the house's shape, at little cost, and the worker
answers on."""

import gzip
import json
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW

PATH = f"/predict/{MODEL}"
BODY = json.dumps(ROW)
CPU_SECONDS = 2.0  # of the worker; the worst of the answers takes less than half a second
POSTS = (
    PATH,
    f"{PATH}/versions/3",
    f"/models/{MODEL}/invocations",
    f"/serving-endpoints/{MODEL}/invocations",
    f"/v2/models/{MODEL}/infer",
)
SECRETS = ("Traceback", ".py", "site-packages", "/tmp/", "/home/", "serving.", "msgspec", "secret-value")


@pytest.fixture(autouse=True)
def _lives_on(server: Server) -> Iterator[None]:
    """The same worker answers as before, and has not spent long on it."""
    process = psutil.Process(server.process.pid)
    yield
    assert server.process.poll() is None
    assert psutil.Process(server.process.pid) == process
    assert server.client.post(PATH, json=ROW).status_code == 200


def refused(server: Server, answer_of: Callable[[], httpx.Response], *statuses: int) -> None:
    """An error in the shape of its protocol that tells nothing of the inside."""
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    answer = answer_of()
    assert sum(process.cpu_times()[:2]) - before < CPU_SECONDS
    assert answer.status_code in (statuses or (400, 422)), answer.text[:300]
    assert answer.headers["x-request-id"]
    error = answer.json()
    assert set(error) in ({"error"}, {"error_code", "message"})
    assert len(answer.content) < 20_000  # nothing large is sent back
    for secret in SECRETS:
        assert secret not in answer.text


def numbered(count: int) -> dict[str, int]:
    return {f"column_{number}": number for number in range(count)}


def with_more(*members: str) -> bytes:
    return f"{BODY[:-1]},{','.join(members)}}}".encode()


DEEP = 100_000
BODIES: dict[str, bytes] = {
    "a pickle": pickle.dumps({"rows": [ROW]}),
    "a pickle that would run": b"cos\nsystem\n(S'echo secret-value'\ntR.",
    "gzip without saying so": gzip.compress(BODY.encode()),
    "swapped bytes": BODY.encode("utf-16-be"),
    "another byte order": BODY.encode("utf-16"),
    "a byte order mark": BODY.encode("utf-8-sig"),
    "no UTF-8": BODY.replace("EWR", "\udcff\udcfe").encode(errors="surrogateescape"),
    "half a surrogate": BODY.replace("EWR", "\\ud800").encode(),
    "NUL": BODY.encode() + b"\0",
    "deep arrays": b"[" * DEEP,
    "deep objects": b'{"rows":' * DEEP,
    "a deep field": BODY.replace("1400", "[" * DEEP + "]" * DEEP).encode(),
    "a deep field in rows": b'{"rows":[{"distance":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}]}",
    "nested a thousand times": b"[" * 1000 + b"]" * 1000,
    **{
        f"instances nested {depth} times, {nan.decode()}": b'{"instances":[' + nan + b"[" * depth + b"]" * depth + b"]}"
        for depth in (300, 500, 800, 900, 950, 980, 990)
        for nan in (b"", b"NaN,")
    },
    "tensors nested 900 times": b'{"inputs":[{"name":' + b"[" * 900 + b"]" * 900 + b"}]}",
    "a tensor's data nested 900 times": (
        b'{"inputs":[{"name":"distance","shape":[1],"datatype":"FP64","data":[' + b"[" * 900 + b"]" * 900 + b"]}]}"
    ),
    "many columns": json.dumps({**ROW, **numbered(100_000)}).encode(),
    "many columns in rows": json.dumps({"rows": [{**ROW, **numbered(100_000)}]}).encode(),
    "many keys twice": with_more(*(f'"column_{number % 50_000}":1' for number in range(100_000))),
    "a key a hundred thousand times": with_more(*['"distance":1'] * 100_000),
    "rows that are wrong": json.dumps({"rows": [{**ROW, "surplus": 1}] * 10_000}).encode(),
    "a long name": json.dumps({**ROW, "n" * 1_000_000: 1}).encode(),
    "a long text for a number": json.dumps({**ROW, "distance": "9" * 1_000_000}).encode(),
    "10^400": BODY.replace("1400", str(10**400)).encode(),
    "-10^400": BODY.replace("1400", str(-(10**400))).encode(),
    "10^4000": BODY.replace("1400", "1" + "0" * 4000).encode(),
    "many huge integers": BODY.replace("1400", "[" + ",".join(["9" * 4000] * 1000) + "]").encode(),
    "a number of a million digits": BODY.replace("1400", "9" * 1_000_000).encode(),
    "1e400": BODY.replace("1400", "1e400").encode(),
    "NaN": BODY.replace("1400", "NaN").encode(),
    "Infinity": BODY.replace("1400", "Infinity").encode(),
    "-Infinity": BODY.replace("1400", "-Infinity").encode(),
    "0x10": BODY.replace("1400", "0x10").encode(),
    "a key twice": with_more('"distance":1'),
    "blanks only": b" " * 1_000_000,
    "opening quotes": b'"' * 999_999,
    "escapes": b'{"' + b"\\u0041" * 200_000,
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_should_break_something(server: Server, kind: str, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    refused(server, lambda: server.client.post(path, content=BODIES[kind], headers=headers))


def tensor(**changed: Any) -> dict[str, Any]:
    return {"name": "distance", "shape": [1], "datatype": "FP64", "data": [1], **changed}


MANY = 100_000
FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "many columns": ("invocations", {"dataframe_split": {"columns": [*numbered(MANY)], "data": []}}),
    "a column many times": ("invocations", {"dataframe_split": {"columns": ["a"] * MANY, "data": [[1] * MANY]}}),
    "many inputs": ("invocations", {"inputs": {name: [1] for name in numbered(MANY)}}),
    "columns of different lengths": ("invocations", {"inputs": {"a": [1], "b": [1] * MANY}}),
    "many instances": ("invocations", {"instances": [0] * MANY}),
    "records that are numbers": ("invocations", {"dataframe_records": [1] * MANY}),
    "two formats": ("invocations", {"instances": [], "inputs": []}),
    "many tensors": ("infer", {"inputs": [tensor()] * 50_000}),
    "a tensor of another shape": ("infer", {"inputs": [tensor(shape=[10**30])]}),
    "a tensor's name is a list": ("infer", {"inputs": [tensor(name=["distance"])]}),
    "a datatype is an object": ("infer", {"inputs": [tensor(datatype={})]}),
    "an output's name is an object": ("infer", {"inputs": [], "outputs": [{"name": {}}]}),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_protocols_documents_that_should_break_something(server: Server, kind: str) -> None:
    last, document = FOREIGN[kind]
    path = f"/models/{MODEL}/invocations" if last == "invocations" else f"/v2/models/{MODEL}/infer"
    refused(server, lambda: server.client.post(path, json=document))


@pytest.mark.parametrize(
    "body",
    [b"a,b\n" + b'"' * 1_000_000, b"a," * 100_000 + b"a\n1\n", b"a\n" * 500_000, b"\xff\xfe", b"distance\n1e999\n"],
)
def test_csv_that_should_break_something(server: Server, body: bytes) -> None:
    headers = {"Content-Type": "text/csv"}
    refused(server, lambda: server.client.post(f"/models/{MODEL}/invocations", content=body, headers=headers))


NAMES = [
    "..", "%2e%2e", "%252e%252e", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fkeys%2fkeys.json", "..%5c..%5ckeys",
    f"{MODEL};x=1", f"{MODEL};", f"{MODEL}%3b", f"{MODEL}%00", f"{MODEL}%0d%0aX-Evil:1", f"{MODEL}%20", MODEL.upper(),
    f"{MODEL}.json", "%ff%fe", "~", "*", "a" * 10_000, "%e2%80%ae", "__shadow", f"{MODEL}__shadow", "<script>",
]  # fmt: skip
VERSIONS = ["0", "-1", "1.0", "1;", "1e3", "%D9%A1", "999999999", "9" * 5000, "..", "1%00", "v1", "%20"]


def raw(server: Server, method: str, path: str) -> tuple[int, bytes]:
    """Send a path as it is: clients would tidy it up."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        body = b"{}" if method == "POST" else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode("latin-1") + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer[9:12]), answer


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:40])
def test_names_that_are_none_are_404(server: Server, name: str) -> None:
    for method, template in (
        ("POST", "/predict/{}"), ("POST", "/predict/{}/versions/3"), ("GET", "/models/{}"),
        ("GET", "/models/{}/health"), ("POST", "/models/{}/invocations"), ("POST", "/serving-endpoints/{}/invocations"),
        ("GET", "/api/2.0/serving-endpoints/{}"), ("GET", "/endpoints/{}"), ("GET", "/v2/models/{}"),
        ("POST", "/v2/models/{}/infer"), ("GET", "/docs/assets/{}"),
    ):  # fmt: skip
        status, answer = raw(server, method, template.format(name))
        assert status in (404, 405), (template, status)
        assert b"x-evil:" not in answer.partition(b"\r\n\r\n")[0].lower()
        assert b"root:" not in answer
        for secret in SECRETS:
            assert secret.encode() not in answer


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version[:20])
def test_versions_that_are_none_are_404(server: Server, version: str) -> None:
    for method, template in (
        ("POST", f"{PATH}/versions/{{}}"),
        ("GET", f"/v2/models/{MODEL}/versions/{{}}"),
        ("POST", f"/v2/models/{MODEL}/versions/{{}}/infer"),
    ):
        status, answer = raw(server, method, template.format(version))
        assert status in (404, 405), (template, status)
        assert b"Traceback" not in answer


BOMB = gzip.compress(bytes(100 * 2**20), 1)


@pytest.mark.parametrize("path", POSTS)
def test_oversized_chunked_and_compressed_bodies(server: Server, path: str) -> None:
    chunks = (b" " * 2**20 for _ in range(20))  # without Content-Length
    refused(server, lambda: server.client.post(path, content=chunks), 413)
    headers = {"Content-Encoding": "gzip"}
    refused(server, lambda: server.client.post(path, content=BOMB, headers=headers), 413)
    for encoding, status in (("br", 415), ("deflate", 400), ("gzip", 400), ("identity, gzip", 415), ("x", 415)):
        headers = {"Content-Encoding": encoding}
        refused(server, lambda: server.client.post(path, content=b"{}", headers=headers), status)  # noqa: B023


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: -1", b"400"),
        ("Content-Length: 99999999999999999999999", b"400"),
        ("Content-Length: 1\r\nContent-Length: 2", b"400"),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", b"400"),
        ("Transfer-Encoding: chunked, identity", b"400"),
        ("Content-Length: 99999999999", b"413"),
    ],
)
def test_lengths_that_contradict(server: Server, head: str, status: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n{{}}".encode())
        assert connection.recv(12)[-3:] == status


def test_slow_bodies_hold_nobody_up(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{{".encode()
    slow = [socket.create_connection((host, int(port)), 60) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(head)
        for _ in range(5):
            for connection in slow:
                connection.sendall(b" ")
            assert server.client.post(PATH, json=ROW).status_code == 200
            time.sleep(0.02)
    finally:
        for connection in slow:
            connection.close()
