"""Features by view and by service: values, their age, and what is said of those that are not there."""

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import to_micros
from ml_platform.features.streaming.timeline import CHANGES, DELTAS, stream_view
from ml_platform.governance.audit_table import ingest_audit, read_audit, verify_audit
from ml_platform.governance.keys import KeyStore
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.feature_services import FeatureServiceStore
from ml_platform.registry.manifest import Input
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer, start_server
from ml_platform_tests.serving.feature_services import (
    HASHES,
    HOUR,
    ROTATION,
    SCHEMAS,
    SERVICE,
    WEATHER,
    board,
    fill,
    publish_service,
    write_view,
)
from ml_platform_tests.serving.issuing import configure, jwk, token

MINUTE = timedelta(minutes=1)
Serve = Callable[..., Server]
VIEW, BOARD = f"/features/{WEATHER}/lookup", f"/features/{SERVICE}/lookup"
FLIGHT = {"origin": "EWR", "aircraft": "N1", "departure": "2013-07-05T12:00:00Z"}


@pytest.fixture(scope="module")
def filled(module_settings: Settings) -> datetime:
    return fill(module_settings)


@pytest.fixture(scope="module")
def server(module_settings: Settings, filled: datetime) -> Iterator[Server]:
    publish_service(module_settings)
    server = start_server(module_settings)
    yield server
    server.stop()


def asked(client: httpx.Client, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_view_answers_with_values_event_time_age_and_why_there_are_none(
    client: httpx.Client, filled: datetime
) -> None:
    keys = ["EWR", "JFK", "LGA", None]
    answer = client.post(VIEW, json={"rows": [{"origin": key} for key in keys]}, headers={"X-Request-ID": "l1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "l1")
    found = answer.json()
    assert (found["name"], found["kind"], found["request_id"]) == (WEATHER, "view", "l1")
    assert found["views"] == {WEATHER: {"view": WEATHER, "definition": HASHES[WEATHER], "ttl_seconds": 21600.0}}
    present, expired, unknown, null = found["rows"]
    assert present["features"] == {"temp": 39.5, "visib": None}  # a value that is null is there all the same
    assert expired["features"] == unknown["features"] == null["features"] == {"temp": None, "visib": None}
    assert unknown["views"] == {WEATHER: {"status": "unknown"}}
    assert null["views"] == {WEATHER: {"status": "null_key"}}
    said = present["views"][WEATHER]
    assert said["status"] == "present"
    assert datetime.fromisoformat(said["event_time"]) == filled
    now = datetime.fromisoformat(found["time"])
    assert said["age_seconds"] == pytest.approx((now - filled).total_seconds())
    assert abs((datetime.now(UTC) - now).total_seconds()) < 600
    assert expired["views"][WEATHER]["status"] == "expired"
    assert expired["views"][WEATHER]["age_seconds"] == pytest.approx(said["age_seconds"] + 7 * 3600)


def test_columns_say_the_same_as_rows(client: httpx.Client) -> None:
    body = {"rows": [{"origin": key} for key in ("JFK", "EWR", "LGA")]}
    by_row, by_column = asked(client, VIEW, body), asked(client, f"{VIEW}?format=columns", body)
    assert "rows" not in by_column
    assert by_column["features"] == {
        name: [row["features"][name] for row in by_row["rows"]] for name in ("temp", "visib")
    }
    said = [row["views"][WEATHER] for row in by_row["rows"]]
    freshness = by_column["freshness"][WEATHER]
    assert freshness["status"] == [one["status"] for one in said] == ["expired", "present", "unknown"]
    assert freshness["event_time"] == [one.get("event_time") for one in said]


def test_as_of_another_instant_what_was_known_later_is_not_given_out(client: httpx.Client, filled: datetime) -> None:
    def status(path: str, as_of: datetime, body: dict[str, Any]) -> list[Any]:
        found = asked(client, f"{path}?as_of={as_of.isoformat()}", body)
        assert datetime.fromisoformat(found["time"]) == as_of
        return [one["status"] for one in found["rows"][0]["views"].values()]

    assert status(VIEW, filled - HOUR, {"origin": "EWR"}) == ["later"]
    assert status(VIEW, filled - HOUR, {"origin": "JFK"}) == ["present"]  # 6 hours old by then: the bound is inclusive
    assert status(VIEW, filled, {"origin": "EWR"}) == ["present"]
    assert status(BOARD, filled + 7 * HOUR, FLIGHT) == ["expired", "present"]
    for wrong in ("yesterday", "2013-07-01T12:00:00", "0001-01-01T00:00:00Z"):
        assert (
            "as_of: wanted a timestamp"
            in asked(client, f"{VIEW}?as_of={wrong}", {"origin": "EWR"}, 422)["error"]["message"]
        )


def test_values_that_a_stream_keeps_fall_by_themselves(settings: Settings, serve: Serve) -> None:
    now = fill(settings)
    schema = msgspec.structs.replace(SCHEMAS[WEATHER], streamed=True)
    at = {"origin": "EWR", "temp": 1.0, "visib": 1.0, "event_time": now - 2 * HOUR}
    write_view(settings, WEATHER, [at], schema=schema, view_hash="5" * 64)
    change = to_micros(now - HOUR)
    deltas = msgspec.msgpack.encode([[(0, 0.0)]])
    frame = pl.DataFrame(
        [
            {
                "origin": "EWR",
                "event_time": now - 90 * MINUTE,
                "temp": 7.0,
                "visib": 8.0,
                CHANGES: [change],
                DELTAS: deltas,
            }
        ],
        schema_overrides={"event_time": pl.Datetime("us", "UTC")},
    )
    with open_online_store(settings.online_uri) as store:
        store.write(stream_view(WEATHER), ("origin",), frame, view_hash="5" * 64)
    client = serve(settings).client
    [row] = asked(client, VIEW, {"origin": "EWR"})["rows"]
    assert row["features"] == {"temp": 0.0, "visib": 8.0}
    assert datetime.fromisoformat(row["views"][WEATHER]["event_time"]) == now - HOUR
    [row] = asked(client, f"{VIEW}?as_of={(now - 80 * MINUTE).isoformat()}", {"origin": "EWR"})["rows"]
    assert row["features"] == {"temp": 7.0, "visib": 8.0}


def test_a_service_joins_views_by_keys_of_the_request_and_computed_ones(client: httpx.Client) -> None:
    found = asked(client, BOARD, FLIGHT)
    assert (found["kind"], found["revision"]) == ("service", 1)
    assert {name: one["definition"] for name, one in found["views"].items()} == {
        WEATHER: HASHES[WEATHER],
        "rotation": HASHES[ROTATION],
    }
    [row] = found["rows"]
    assert row["features"] == {f"{WEATHER}__temp": 39.5, f"{WEATHER}__visib": None, "rotation__legs": 2}
    assert row["views"]["rotation"]["status"] == "present"  # 900 hours old, in a view without a TTL
    [other] = asked(client, BOARD, {**FLIGHT, "departure": "2013-07-06T12:00:00Z"})["rows"]
    assert other["views"]["rotation"] == {"status": "unknown"}  # the day is part of the key


def test_request_features_are_computed_for_who_asks(client: httpx.Client) -> None:
    [row] = asked(client, f"{BOARD}?request_features=true", {**FLIGHT, "distance": 200})["rows"]
    assert {name: row["features"][name] for name in ("day", "km")} == {"day": 5, "km": 300.0}
    [row] = asked(client, f"{BOARD}?request_features=true", FLIGHT)["rows"]
    assert row["features"]["km"] == 150.0  # from the declared default
    [row] = asked(client, BOARD, FLIGHT)["rows"]
    assert "km" not in row["features"]


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        (VIEW, {"origin": 7}, "origin: wanted a string, found 7"),
        (VIEW, {"rows": [{"origin": "EWR"}, {"origin": True}]}, "row 1, origin: wanted a string, found true"),
        (VIEW, {}, "origin: is missing"),
        (VIEW, {"origin": "EWR", "dest": "IAH"}, "dest: is not a field of this request"),
        (VIEW, {"rows": []}, "wanted at least one row"),
        (VIEW, {"rows": [{"origin": "EWR"}] * 10_001}, "wanted at most 10,000 rows, found 10,001"),
        (f"/features/{ROTATION}/lookup", {"tailnum": "N1", "day": 1.5}, "day: wanted an integer, found 1.5"),
        (BOARD, {**FLIGHT, "distance": -1}, "distance: wanted a finite number of at least 0"),
        (BOARD, {**FLIGHT, "departure": "yesterday"}, "departure: wanted a timestamp"),
        (f"{VIEW}?format=csv", {"origin": "EWR"}, "format: wanted `format`, rows or columns"),
    ],
)
def test_what_does_not_fit_is_refused_as_predictions_refuse_it(
    client: httpx.Client, path: str, body: Any, problem: str
) -> None:
    error = asked(client, path, body, 422)["error"]
    assert problem in error["message"]
    assert error["code"] == "invalid_request"
    assert error["problems"]


def test_unknown_names_and_broken_bodies(client: httpx.Client) -> None:
    error = asked(client, "/features/nope/lookup", {}, 404)["error"]
    assert error["message"] == f"no feature view or service 'nope' is here; there are: {SERVICE}, {ROTATION}, {WEATHER}"
    assert client.post(VIEW, content=b"{").status_code == 400
    assert client.get(VIEW).status_code == 405


def test_metrics_tell_what_was_found(client: httpx.Client) -> None:
    def series() -> dict[str, float]:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("ml_platform_feature_l")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    before = series()
    asked(client, VIEW, {"rows": [{"origin": key} for key in ("EWR", "EWR", "JFK", "LGA")]})
    asked(client, VIEW, {"origin": 7}, 422)
    after = series()
    gained = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    name = f'name="{WEATHER}"'
    keys = f"ml_platform_feature_lookup_keys_total{{{name},"
    assert gained[f'{keys}state="present",view="{WEATHER}"}}'] == 2
    assert gained[f'{keys}state="expired",view="{WEATHER}"}}'] == 1
    assert gained[f'{keys}state="unknown",view="{WEATHER}"}}'] == 1
    assert gained[f"ml_platform_feature_lookup_rows_total{{{name}}}"] == 4
    assert gained[f'ml_platform_feature_lookups_total{{{name},status="200"}}'] == 1
    assert gained[f'ml_platform_feature_lookups_total{{{name},status="422"}}'] == 1
    assert gained[f"ml_platform_feature_lookup_seconds_count{{{name}}}"] == 1


def test_definitions_and_publications_count_at_once_and_survive_a_restart(either: Settings, serve: Serve) -> None:
    at = fill(either)
    server = serve(either)
    client = server.client
    assert asked(client, VIEW, {"origin": "EWR"})["views"][WEATHER]["definition"] == HASHES[WEATHER]
    assert client.post(BOARD, json=FLIGHT).status_code == 404
    publish_service(either)
    server.wait_until(lambda client: client.post(BOARD, json=FLIGHT).status_code == 200)
    # Another definition of a view: the next answer has its values and says whose they are.
    write_view(either, WEATHER, [{"origin": "EWR", "temp": 1.0, "visib": 2.0, "event_time": at}], view_hash="9" * 64)
    found = asked(client, BOARD, FLIGHT)
    assert found["rows"][0]["features"][f"{WEATHER}__temp"] == 1.0
    assert found["views"][WEATHER]["definition"] == "9" * 64
    assert asked(client, VIEW, {"origin": "EWR"})["views"][WEATHER]["definition"] == "9" * 64
    publish_service(either, board(pinned=True))
    server.wait_until(lambda client: client.post(BOARD, json=FLIGHT).status_code == 409)
    assert "pinned to 111111111111" in asked(client, BOARD, FLIGHT, 409)["error"]["message"]
    server.stop(signal.SIGKILL)
    client = serve(either).client
    assert "pinned to" in asked(client, BOARD, FLIGHT, 409)["error"]["message"]
    publish_service(either)


def test_a_service_whose_view_lost_a_feature_says_so(settings: Settings, serve: Serve) -> None:
    at = fill(settings)
    publish_service(settings)
    client = serve(settings).client
    assert asked(client, BOARD, FLIGHT)["rows"]
    schema = msgspec.structs.replace(SCHEMAS[WEATHER], columns=(Input(name="temp", type="number"),))
    rows = [{"origin": "EWR", "temp": 3.0, "event_time": at}]
    write_view(settings, WEATHER, rows, view_hash="8" * 64, schema=schema)
    error = asked(client, BOARD, FLIGHT, 409)["error"]
    assert error["code"] == "view_changed"
    assert error["message"].startswith(f"'{WEATHER}' has no feature visib any more: publish the service again")


def test_a_damaged_document_leaves_what_was_served_and_is_said_after_a_restart(
    settings: Settings, serve: Serve
) -> None:
    fill(settings)
    publish_service(settings)
    store = FeatureServiceStore(ReleaseStore(settings.releases_dir))
    server = serve(settings)
    store.path(SERVICE).write_text('{"name": ')
    other = publish_service(settings, board(name="other"))
    server.wait_until(lambda client: client.post(f"/features/{other.name}/lookup", json=FLIGHT).status_code == 200)
    assert asked(server.client, BOARD, FLIGHT)["revision"] == 1
    server.stop()
    server = serve(settings)
    error = asked(server.client, BOARD, FLIGHT, 503)["error"]
    assert "not a feature service" in error["message"]
    assert str(settings.home) not in error["message"]
    assert publish_service(settings).revision == 2
    server.wait_until(lambda client: client.post(BOARD, json=FLIGHT).status_code == 200)
    assert store.withdraw(SERVICE)
    server.wait_until(lambda client: client.post(BOARD, json=FLIGHT).status_code == 404)


def test_keys_are_for_views_and_services_by_name(settings: Settings, serve: Serve) -> None:
    fill(settings)
    publish_service(settings)
    keys = KeyStore(settings.keys_dir)
    _, view = keys.create("view", roles=["predict"], models=[f"features/{WEATHER}"])
    _, service = keys.create("service", roles=["predict"], models=[f"features/{SERVICE}"])
    _, model = keys.create("model", roles=["predict"], models=[WEATHER, SERVICE])
    _, push = keys.create("push", roles=["push"])
    _, slow = keys.create("slow", roles=["predict"], rate=0.001, burst=1)
    client = serve(settings).client

    def status(path: str, body: Any, key: str) -> int:
        return client.post(path, json=body, headers=bearer(key)).status_code

    row = {"origin": "EWR"}
    assert [status(VIEW, row, key) for key in (view, service, model, push)] == [200, 403, 403, 403]
    assert [status(BOARD, FLIGHT, key) for key in (view, service, model, push)] == [403, 200, 403, 403]
    assert [status(f"/features/{WEATHER}", {}, key) for key in (view, service)] == [403, 403]
    records = f"/serving-endpoints/{SERVICE}/invocations"
    body = {"dataframe_records": [FLIGHT]}
    assert [status(records, body, key) for key in (view, service, model)] == [403, 200, 403]
    feast = {"entities": {"origin": ["EWR"]}, "features": [f"{WEATHER}:temp"]}
    assert [status("/get-online-features", feast, key) for key in (view, service, push)] == [200, 403, 403]
    assert [status(VIEW, row, slow) for _ in range(2)] == [200, 429]


def test_the_audit_log_says_how_many_rows_were_looked_up(settings: Settings, serve: Serve) -> None:
    fill(settings)
    publish_service(settings)
    _, token = KeyStore(settings.keys_dir).create("board", roles=["predict", "push"])
    server = serve(settings)
    push = {"origin": "LGA", "temp": 1.0, "visib": 1.0, "event_time": "2026-01-01T00:00:00Z"}
    feast = {"entities": {"origin": ["EWR", "JFK", "LGA"]}, "features": [f"{WEATHER}:temp"]}
    for number, (path, body) in enumerate([
        (VIEW, {"rows": [{"origin": "EWR"}] * 5}),
        (f"/serving-endpoints/{SERVICE}/invocations", {"dataframe_records": [FLIGHT] * 2}),
        ("/get-online-features", feast),
        (f"/features/{WEATHER}", push),
        (VIEW, {"origin": 7}),
    ]):  # fmt: skip
        server.client.post(path, json=body, headers={**bearer(token), "X-Request-ID": f"r{number}"})
    server.stop()
    lake = Lake(settings.lake_uri)
    for _ in ("in files", "in the lake"):
        lines = read_audit(lake, settings).filter(pl.col("request_id").str.starts_with("r"))
        assert lines["status"].to_list() == [200, 200, 200, 200, 422]
        assert lines["rows"].to_list() == [5, 2, 3, 1, None]
        ingest_audit(lake, settings)
    assert verify_audit(lake, settings)[1] == []


def test_a_token_that_may_change_a_view_may_not_read_it_by_feasts_route(
    settings: Settings, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings)
    (tmp_path / "jwks.json").write_bytes(msgspec.json.encode({"keys": [jwk("rsa")]}))
    grants = {
        "ops": {"roles": ["promote"], "models": [f"features/{WEATHER}"]},
        "app": {"roles": ["predict"], "models": [f"features/{ROTATION}"]},
    }
    configure(monkeypatch, str(tmp_path / "jwks.json"), grants)
    client = serve(settings).client
    asks = {
        WEATHER: {"entities": {"origin": ["EWR"]}, "features": [f"{WEATHER}:temp"]},
        ROTATION: {"entities": {"tailnum": ["N1"], "day": [5]}, "features": [f"{ROTATION}:legs"]},
    }
    statuses = {
        view: client.post("/get-online-features", json=body, headers=bearer(token("ops", "app"))).status_code
        for view, body in asks.items()
    }
    assert statuses == {WEATHER: 403, ROTATION: 200}
