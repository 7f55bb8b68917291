"""What the server writes to stderr."""

import json
import logging
import sys
from collections.abc import Callable

from ml_platform.governance.keys import KeyStore
from ml_platform.serving.telemetry.logs import JsonFormatter, TextFormatter
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer
from ml_platform_tests.serving.releases import HASHES, MODEL, ROW, fill_online_store, publish

PATH = f"/predict/{MODEL}"
Serve = Callable[..., Server]


def lines(server: Server) -> list[dict]:
    """Everything that it wrote, each line JSON."""
    return [json.loads(line) for line in server.stop().splitlines()]


def test_json_lines_name_request_model_caller_status_and_duration_and_hold_no_payload(
    settings: Settings, serve: Serve
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    _, token = KeyStore(settings.keys_dir).create("nightly job", roles=["predict"])
    server = serve(settings, "--log-format", "json", "--log-requests", "all", "--log-level", "info")
    headers = {**bearer(token), "X-Request-ID": "mine-1"}
    assert server.client.post(PATH, json={**ROW, "dest": "SECRET"}, headers=headers).status_code == 200
    headers["X-Request-ID"] = "mine-2"
    assert server.client.post(PATH, json={**ROW, "distance": "SECRET"}, headers=headers).status_code == 422
    found = lines(server)
    by_id = {line["request_id"]: line for line in found if line["logger"] == "serving.requests"}
    answered, refused = by_id["mine-1"], by_id["mine-2"]
    assert (answered["level"], answered["status"], answered["model"]) == ("info", 200, MODEL)
    assert (answered["caller"], answered["method"], answered["path"]) == ("nightly job", "POST", PATH)
    assert 0 < answered["duration_ms"] < 10_000
    assert (refused["level"], refused["status"]) == ("warning", 422)
    assert "SECRET" not in json.dumps(found)
    assert token not in json.dumps(found)
    assert any(line["logger"].startswith("uvicorn") for line in found)


def test_by_default_only_failures_are_logged(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    server = serve(settings, "--log-format", "json", "--workers", "2")
    assert server.client.post(PATH, json=ROW).status_code == 503
    assert server.client.get("/models/unheard_of").status_code == 404
    requests = [line for line in lines(server) if line["logger"] == "serving.requests"]
    assert [(line["status"], line["level"]) for line in requests] == [(503, "error")]


def test_text_says_the_same_and_without_requests_it_is_quiet(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--log-requests", "refused")
    server.client.post(PATH, json={}, headers={"X-Request-ID": "mine"})
    server.client.post(PATH, json=ROW)
    [line] = server.stop().splitlines()
    assert line.startswith("WARNING:")
    assert f"POST {PATH} 422 in " in line
    assert line.endswith("request mine")
    quiet = serve(settings)
    quiet.client.post(PATH, json={})
    assert quiet.stop() == ""


def test_the_servers_own_errors_are_lines_of_json_too(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings, "--log-format", "json")
    # One view: views are written one by one, and a server that saw some of several would say so, then say all.
    fill_online_store(settings, hashes={**HASHES, "origin_weather": "d" * 64})
    server.wait_until(lambda client: client.get("/models").json()["models"][0]["refused"] is not None)
    [line] = [line for line in lines(server) if line["logger"] == "serving"]
    assert (line["level"], "revision 1 is refused" in line["message"]) == ("error", True)


def test_a_traceback_stays_on_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("serving", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert json.loads(text)["traceback"].endswith("ValueError: two\nlines")


def test_no_request_can_write_a_line_of_its_own(settings: Settings, serve: Serve) -> None:
    server = serve(settings, "--log-requests", "all")
    assert server.client.get("/x%0AERROR:%20forged%0D%1B[31m%E2%80%A8red").status_code == 404
    found = server.stop()
    [line] = [line for line in found.splitlines() if "forged" in line]
    assert r"GET /x\nERROR: forged\r\x1b[31m\u2028red 404" in line


def test_no_exception_can_write_a_line_of_its_own() -> None:
    try:
        raise ValueError("told\nERROR: forged\x1b[31m")
    except ValueError:
        record = logging.LogRecord("serving", logging.ERROR, "", 0, "it %s", ("failed\nERROR: forged",), sys.exc_info())
    formatter = TextFormatter("%(levelname)s: %(message)s", use_colors=False)
    first, *others = formatter.format(record).split("\n")
    assert first == r"ERROR: it failed\nERROR: forged"
    assert all(line.startswith("    ") for line in others)
    assert others[-1] == r"    ERROR: forged\x1b[31m"
