"""What a caller sees for each kind of bad request: a status, a code, the field, and words that say what to do."""

import gzip
import json
import socket
import zlib
from typing import Any

import httpx
import pytest

from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import ROW

PATH = "/predict/flight_delay"
BODY = json.dumps(ROW)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key != name}


def error(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert list(body) == ["error"]
    assert body["error"]["request_id"] == answer.headers["x-request-id"]
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (json.dumps(without("dest")), "dest", "is missing; wanted a string"),
        (json.dumps({**ROW, "carrier": 7}), "carrier", "wanted a string, found 7"),
        (json.dumps({**ROW, "distance": "far"}), "distance", 'wanted a finite number, found "far"'),
        (BODY.replace("1400", "9007199254740993"), "distance", "wanted a number that a 64-bit float has"),
        (json.dumps({**ROW, "distance": True}), "distance", "wanted a finite number, found true"),
        (json.dumps({**ROW, "origin": None}), "origin", "wanted a string, found null"),
        (json.dumps({**ROW, "distance": float("inf")}), "distance", "wanted a finite number, found an infinite number"),
        (json.dumps({**ROW, "distance": float("nan")}), "distance", "wanted a finite number, found NaN"),
        (BODY.replace("1400", "1e999"), "distance", "wanted a finite number, found an infinite number"),
        (json.dumps({**ROW, "distance": -1}), "distance", "of at least 0 and at most 6000, found -1"),
        (json.dumps({**ROW, "origine": "EWR"}), "origine", "is not a field of this request; did you mean 'origin'?"),
        (BODY[:-1] + ', "carrier": "AA"}', "carrier", "appears twice"),
        (json.dumps({**ROW, "scheduled_departure": "tomorrow"}), "scheduled_departure", 'found "tomorrow"'),
        (json.dumps({**ROW, "scheduled_departure": "2013-07-01T12:00:00"}), "scheduled_departure", "with UTC offset"),
        (json.dumps({**ROW, "scheduled_departure": "0001-01-01T00:00:00Z"}), "scheduled_departure", "1678 to 2261"),
        (json.dumps({"rows": []}), "rows", "wanted at least one row, found 0"),
        (json.dumps({"rows": ROW}), "rows", "wanted an array of objects, found an object"),
        (json.dumps({"rows": [ROW], "row": 1}), "row", "did you mean 'rows'?"),
        (json.dumps({"rows": [ROW] * 10_001}), "rows", "wanted at most 10,000 rows, found 10,001"),
        (json.dumps([ROW]), None, 'wanted an object with one row, or {"rows": [...]}, found an array'),
        ('"text"', None, "found a string"),
    ],
)
def test_what_does_not_fit_is_422_and_names_the_field(
    client: httpx.Client, body: str, field: str | None, message: str
) -> None:
    answer = client.post(PATH, content=body)
    assert answer.status_code == 422
    found = error(answer)
    assert found["code"] == "invalid_request"
    [problem] = found["problems"]
    assert problem.get("field") == field
    assert message in problem["message"]
    assert problem["message"] in found["message"]


def test_every_problem_is_told_at_once_with_its_row(client: httpx.Client) -> None:
    rows = [ROW, {**without("dest"), "distance": None}, {**ROW, "carrier": []}, 5]
    problems = error(client.post(PATH, json={"rows": rows}))["problems"]
    places = [(problem["row"], problem.get("field")) for problem in problems]
    assert places == [(1, "dest"), (1, "distance"), (2, "carrier"), (3, None)]


def test_at_most_twenty_problems_are_listed_and_all_are_counted(client: httpx.Client) -> None:
    found = error(client.post(PATH, json={"rows": [{**ROW, "origin": 1}] * 50}))
    assert len(found["problems"]) == 20
    assert "(and 49 more)" in found["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"carrier=UA", "the body is not JSON"),
        (BODY[:-1].encode(), "the body is not JSON"),
        (BODY.encode() + b"}", "the body is not JSON"),
        (BODY.replace("EWR", "E\udcffR").encode(errors="surrogateescape"), "is not UTF-8"),
        (b'{"carrier":' * 100_000, "nested too deeply"),
        (BODY.replace("1400", "9" * 5000).encode(), "thousands of digits"),
    ],
)
def test_what_is_no_json_is_400(client: httpx.Client, body: bytes, message: str) -> None:
    answer = client.post(PATH, content=body)
    assert answer.status_code == 400
    assert error(answer)["code"] == "invalid_json"
    assert message in error(answer)["message"]


def test_an_unknown_model_is_404_and_lists_the_known(client: httpx.Client) -> None:
    answer = client.post("/predict/flight_delays", json=ROW)
    assert answer.status_code == 404
    assert error(answer)["code"] == "unknown_model"
    assert error(answer)["message"] == "no released model is called 'flight_delays'; released are: flight_delay"
    assert client.get("/models/nope").status_code == 404
    assert "released are: flight_delay" in error(client.get("/models/nope"))["message"]


@pytest.mark.parametrize("size", [16 * 2**20 + 1, 40 * 2**20])
def test_a_body_past_16_mib_is_413(client: httpx.Client, size: int) -> None:
    answer = client.post(PATH, content=b" " * size)
    assert answer.status_code == 413
    assert error(answer)["code"] == "body_too_large"
    assert "16 MiB" in error(answer)["message"]


def test_a_chunked_body_past_16_mib_is_413(client: httpx.Client) -> None:
    answer = client.post(PATH, content=(b" " * 2**20 for _ in range(20)))
    assert answer.status_code == 413


SENT = json.dumps(ROW).encode()
COMPRESSED = {
    "gzip": ("gzip", gzip.compress(SENT), 200, ""),
    "in capitals": ("GZip", gzip.compress(SENT), 200, ""),
    "gzip by its old name": ("x-gzip", gzip.compress(SENT), 200, ""),
    "deflate": ("deflate", zlib.compress(SENT), 200, ""),
    "deflate without zlib's header": ("deflate", zlib.compress(SENT, wbits=-15), 200, ""),
    "not at all": ("identity", SENT, 200, ""),
    "not as it says": ("gzip", SENT, 400, "one gzip stream"),
    "cut off": ("gzip", gzip.compress(SENT)[:-9], 400, "one gzip stream"),
    "something after it": ("gzip", gzip.compress(SENT) + b"x", 400, "one gzip stream"),
    "two streams": ("gzip", gzip.compress(SENT) * 2, 400, "one gzip stream"),
    "nothing": ("deflate", b"", 400, "one deflate stream"),
    "a bomb": ("gzip", gzip.compress(bytes(200 * 2**20)), 413, "larger than 16 MiB"),
    "another way": ("br", b"x", 415, "gzip and deflate are supported"),
    "twice": ("gzip, gzip", gzip.compress(gzip.compress(SENT)), 415, "gzip and deflate are supported"),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_bodies_within_the_limit_are_read(client: httpx.Client, kind: str) -> None:
    encoding, content, status, told = COMPRESSED[kind]
    answer = client.post(PATH, content=content, headers={"Content-Encoding": encoding})
    assert answer.status_code == status, answer.text
    if told:
        assert told in error(answer)["message"]
    else:
        assert answer.json()["predictions"] == client.post(PATH, json=ROW).json()["predictions"]


def test_a_request_id_with_strange_signs_is_refused_and_replaced(client: httpx.Client) -> None:
    answer = client.post(PATH, json=ROW, headers={"X-Request-ID": "a b<script>"})
    assert answer.status_code == 422
    [problem] = error(answer)["problems"]
    assert problem["field"] == "X-Request-ID"
    assert len(answer.headers["x-request-id"]) == 32


def test_wrong_methods_and_paths_have_the_same_shape_of_error(client: httpx.Client) -> None:
    answer = client.get(PATH)
    assert (answer.status_code, error(answer)["code"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")
    answer = client.get("/nothing/here")
    assert (answer.status_code, error(answer)["message"]) == (404, "there is nothing at /nothing/here; see /docs")


@pytest.mark.parametrize("path", ["/predict/../models", "/predict/%2e%2e%2fmodels", "/predict/", "/predict/a/b"])
def test_paths_cannot_climb(server: Server, path: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as raw:
        raw.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()
        )
        assert raw.recv(12) == b"HTTP/1.1 404"


def test_the_server_still_answers_after_all_that(client: httpx.Client) -> None:
    assert client.post(PATH, json=ROW).status_code == 200


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    "text", ["2013-07-01T12:00Z", "2013-07-01t12:00:00z", "2013-07-01T14:00+0200", "2013-07-01 14:00:00+02"]
)
def test_every_form_of_an_instant_gets_the_same_answer(client: httpx.Client, text: str, many: bool) -> None:
    rows = [{**ROW, "scheduled_departure": text}] * (40 if many else 1)
    answer = client.post(PATH, json={"rows": rows} if many else rows[0])
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][-1] == client.post(PATH, json=ROW).json()["predictions"][0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2013-02-30T12:00:00Z", "February 2013 has 28 days"),
        ("2016-12-31T23:59:60Z", "a leap second"),
        ("2013-W27-1T12:00Z", "read are 2013-07-01T12:00Z"),
        ("2013-07-01T12:00", "no offset"),
    ],
)
def test_an_instant_that_is_none_is_named_with_field_value_and_reason(
    client: httpx.Client, text: str, told: str
) -> None:
    answer = client.post(PATH, json={**ROW, "scheduled_departure": text})
    assert answer.status_code == 422
    [problem] = error(answer)["problems"]
    assert problem["field"] == "scheduled_departure"
    assert f'found "{text}"' in problem["message"]
    assert told in problem["message"]
