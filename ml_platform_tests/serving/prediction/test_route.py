"""What a caller gets for good requests, from a server as it is run."""

from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import KNOWN_AT, ROW, score

PATH = "/predict/flight_delay"


def records(settings: Settings, request_id: str) -> list[dict[str, Any]]:
    found = []
    for path in settings.inference_log_dir.glob("*/*.jsonl"):
        found += [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return [record for record in found if record["request_id"] == request_id]


def test_one_row_gives_one_prediction_with_version_and_request_id(client: httpx.Client) -> None:
    answer = client.post(PATH, json=ROW)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["model", "version", "request_id", "predictions"]
    assert (body["model"], body["version"]) == ("flight_delay", 3)
    assert body["request_id"] == answer.headers["x-request-id"]
    [prediction] = body["predictions"]
    assert prediction["id"] == ROW["flight_id"]
    assert prediction["probability"] == pytest.approx(score(3, ROW), abs=1e-12)
    assert prediction["prediction"] is (prediction["probability"] >= 0.5)


@pytest.mark.parametrize("count", [2, 499, 2000, 10_000])
def test_many_rows_are_answered_in_their_order_inline_or_in_a_thread(client: httpx.Client, count: int) -> None:
    rows = [{**ROW, "flight_id": str(number), "distance": number % 5000} for number in range(count)]
    answer = client.post(PATH, json={"rows": rows}).json()
    assert [prediction["id"] for prediction in answer["predictions"]] == [str(number) for number in range(count)]
    wanted = [score(3, rows[number]) for number in (0, 1, count - 1)]
    found = [answer["predictions"][number]["probability"] for number in (0, 1, count - 1)]
    assert found == pytest.approx(wanted, abs=1e-12)


def test_a_request_id_that_is_sent_comes_back_and_is_logged(client: httpx.Client, module_settings: Settings) -> None:
    answer = client.post(PATH, json=ROW, headers={"X-Request-ID": "order-17/a"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "order-17/a"
    [record] = records(module_settings, "order-17/a")
    assert record["inputs"] == ROW
    assert record["caller"] == "127.0.0.1"


def test_the_record_holds_what_the_model_saw_and_said(client: httpx.Client, module_settings: Settings) -> None:
    answer = client.post(PATH, json={"rows": [ROW, {**ROW, "flight_id": "second"}]}).json()
    first, second = records(module_settings, answer["request_id"])
    assert (first["row"], second["row"], second["id"]) == (0, 1, "second")
    assert first["score"] == answer["predictions"][0]["probability"]
    assert first["prediction"] == answer["predictions"][0]["prediction"]
    assert (first["model"], first["version"], first["as_of"]) == ("flight_delay", 3, "2013-07-01T11:00:00Z")
    assert first["features"]["minute_of_day"] == 480  # 8 o'clock in New York, derived
    assert first["features"]["origin_weather__temp"] == 17.0  # looked up
    assert len(first["digest"]) == 64


def test_an_unknown_carrier_is_answered_as_unseen(client: httpx.Client, module_settings: Settings) -> None:
    answer = client.post(PATH, json={**ROW, "carrier": "ZZ"})
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["probability"] != pytest.approx(score(3, ROW), abs=1e-9)
    [record] = records(module_settings, answer.json()["request_id"])
    assert record["features"]["carrier"] == "ZZ"
    assert record["features"]["carrier_reliability__late_share_3h"] is None  # nor has the online store heard of it


def test_optional_fields_may_be_null_or_left_out(client: httpx.Client) -> None:
    without = {name: value for name, value in ROW.items() if name not in ("tailnum", "flight_id")}
    first = client.post(PATH, json=without).json()["predictions"][0]
    second = client.post(PATH, json={**without, "tailnum": None, "flight_id": None}).json()["predictions"][0]
    assert first == second
    assert "id" not in first


def test_features_older_than_their_ttl_count_as_null(client: httpx.Client, module_settings: Settings) -> None:
    limit = KNOWN_AT + timedelta(hours=6 + 1)  # features are looked up an hour before departure
    for departure, temperature in ((limit, 17.0), (limit + timedelta(minutes=1), None)):
        row = {**ROW, "scheduled_departure": departure.isoformat(), "scheduled_arrival": "2013-07-02T00:00:00Z"}
        answer = client.post(PATH, json=row).json()
        [record] = records(module_settings, answer["request_id"])
        assert record["features"]["origin_weather__temp"] == temperature


def test_times_in_another_zone_mean_the_same_instant(client: httpx.Client) -> None:
    row = {**ROW, "scheduled_departure": "2013-07-01T08:00:00-04:00", "scheduled_arrival": "2013-07-01T17:30:00+02:00"}
    answer = client.post(PATH, json=row).json()
    assert answer["predictions"][0]["probability"] == pytest.approx(score(3, ROW), abs=1e-12)


def test_metrics_count_answers_rows_and_missing_features(client: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    answered = value('ml_platform_requests_total{model="flight_delay",status="200"}')
    rows = value('ml_platform_predictions_total{model="flight_delay",version="3"}')
    missing = value('ml_platform_features_not_found_total{model="flight_delay",view="aircraft_rotation"}')
    client.post(PATH, json={"rows": [ROW, {**ROW, "tailnum": "N0"}, {**ROW, "tailnum": None}]})
    assert value('ml_platform_requests_total{model="flight_delay",status="200"}') == answered + 1
    assert value('ml_platform_predictions_total{model="flight_delay",version="3"}') == rows + 3
    assert value('ml_platform_features_not_found_total{model="flight_delay",view="aircraft_rotation"}') == missing + 2
    assert value('ml_platform_serving_version{model="flight_delay"}') == 3
    assert value('ml_platform_request_seconds_count{model="flight_delay",version="3"}') == answered + 1
