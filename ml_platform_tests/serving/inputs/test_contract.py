"""What a model's owner declared of its inputs holds at the door: refused, flagged or replaced, counted and logged."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Input
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.releases import INPUTS, ROW, fill_online_store, publish

PATH = "/predict/flight_delay"
CHANGES: dict[str, dict[str, Any]] = {
    "origin": {"allowed": ("EWR", "JFK", "LGA")},
    "carrier": {"allowed": ("AA", "B6", "UA"), "flagged": ("allowed",)},
    "dest": {"required": False, "default": "IAH"},
    "tailnum": {"required": False, "flagged": ("null",)},
    "distance": {"flagged": ("range",)},
}


def contract() -> tuple[Input, ...]:
    return tuple(msgspec.structs.replace(field, **CHANGES.get(field.name, {})) for field in INPUTS)


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    fill_online_store(module_settings)
    publish(module_settings, 1, inputs=contract())
    server = start_server(module_settings)
    yield server
    server.stop()


def rows() -> list[dict[str, Any]]:
    """Rows of which some break what is flagged, in one field or several."""
    made = []
    for number in range(40):
        row = {**ROW, "flight_id": f"flight-{number}"}
        if number % 5 == 1:
            row["carrier"] = "ZZ"
        if number % 7 == 2:
            row["tailnum"] = None
        if number % 8 == 3:
            del row["tailnum"]
            row["distance"] = 6000.5 + number
        if number % 3 == 0:
            row["dest"] = None
        made.append(row)
    return made


def counted(client: httpx.Client) -> dict[str, float]:
    """Violations by field and kind so far."""
    found = {}
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("ml_platform_contract_violations_total{"):
            labels, value = line.rsplit(" ", 1)
            parts = dict(part.split("=") for part in labels.partition("{")[2].rstrip("}").split(","))
            found[f"{parts['field']} {parts['kind']}".replace('"', "")] = float(value)
    return found


def test_what_is_flagged_is_answered_and_marked(client: httpx.Client) -> None:
    answer = client.post(PATH, json={**ROW, "carrier": "ZZ", "tailnum": None}).json()
    assert len(answer["predictions"]) == 1
    assert answer["flags"] == [
        {"row": 0, "field": "carrier", "message": 'wanted one of "AA", "B6", "UA", found "ZZ"'},
        {"row": 0, "field": "tailnum", "message": "wanted a string, found null"},
    ]
    assert "flags" not in client.post(PATH, json=ROW).json()


def test_a_null_takes_its_default(client: httpx.Client) -> None:
    told = {
        name: client.post(PATH, json=row).json()["predictions"]
        for name, row in (("null", {**ROW, "dest": None}), ("said", {**ROW, "dest": "IAH"}))
    }
    assert told["null"] == told["said"]


@pytest.mark.parametrize("many", [False, True])
def test_what_is_not_allowed_is_refused_with_the_nearest_spelling(client: httpx.Client, many: bool) -> None:
    sent = [*rows()[:30], {**ROW, "origin": "EWK"}]
    answer = client.post(PATH, json={"rows": sent} if many else sent[-1])
    assert answer.status_code == 422
    [problem] = answer.json()["error"]["problems"]
    assert problem["field"] == "origin"
    assert problem["message"] == 'wanted one of "EWR", "JFK", "LGA", found "EWK"; did you mean "EWR"?'


def test_many_rows_and_single_rows_give_the_same_flags_answers_and_log(
    client: httpx.Client, module_settings: Settings
) -> None:
    together = client.post(PATH, json={"rows": rows()}, headers={"X-Request-ID": "together"}).json()
    alone: list[dict[str, Any]] = []
    flags: list[dict[str, Any]] = []
    for number, row in enumerate(rows()):
        answer = client.post(PATH, json=row, headers={"X-Request-ID": f"alone-{number}"}).json()
        alone += answer["predictions"]
        flags += [{**flag, "row": number} for flag in answer.get("flags", [])]
    assert together["flags"] == flags
    assert len(flags) > 15
    for left, right in zip(together["predictions"], alone, strict=True):
        assert left.pop("probability") == pytest.approx(right.pop("probability"), rel=1e-14)
        assert left == right

    lake = Lake(module_settings.lake_uri)
    ingest_log(lake, module_settings)
    table = lake.read("inference_log/flight_delay").collect()
    logged = table.filter(pl.col("request_id") == "together").sort("row")
    single = table.filter(pl.col("request_id").str.starts_with("alone-")).sort(
        pl.col("request_id").str.slice(6).cast(pl.Int64)
    )
    assert logged["flags"].to_list() == single["flags"].to_list()
    told = [
        {"row": number, "field": flag["field"], "message": flag["message"]}
        for number, marks in enumerate(logged["flags"].to_list())
        for flag in marks or ()
    ]
    assert told == flags
    assert json.loads(logged["inputs"][0])["dest"] is None  # what was sent, not what stood for it


def test_violations_are_counted_by_field_and_kind(client: httpx.Client) -> None:
    before = counted(client)
    client.post(PATH, json={"rows": [{**ROW, "carrier": "ZZ"}] * 30})  # flagged
    client.post(PATH, json={"rows": [{**ROW, "origin": "XXX"}] * 25})  # refused: more than the answer lists
    client.post(PATH, json={**ROW, "carrier": None, "distance": "far"})
    after = counted(client)
    changes = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert changes == {"carrier allowed": 30, "origin allowed": 25, "carrier null": 1, "distance type": 1}


def test_openapi_tells_it(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()["components"]["schemas"]["flight_delay_row"]
    fields = schema["properties"]
    assert fields["origin"]["enum"] == ["EWR", "JFK", "LGA"]
    assert fields["dest"]["default"] == "IAH"
    assert fields["dest"]["type"] == ["string", "null"]
    assert "enum" not in fields["carrier"]  # a client that checks the schema may send others
    assert fields["carrier"]["x-expected"] == {"enum": ["AA", "B6", "UA"]}
    assert fields["distance"]["x-expected"] == {"minimum": 0.0, "maximum": 6000.0}
    assert schema["required"] == ["carrier", "origin", "scheduled_departure", "scheduled_arrival", "distance"]


def test_other_protocols_carry_the_flags(client: httpx.Client) -> None:
    row = {**ROW, "carrier": "ZZ"}
    message = 'wanted one of "AA", "B6", "UA", found "ZZ"'
    mlflow = client.post("/models/flight_delay/invocations", json={"dataframe_records": [row]}).json()
    assert mlflow["flags"] == [{"row": 0, "field": "carrier", "message": message}]
    kinds = {"distance": "FP64"}
    tensors = [
        {"name": name, "shape": [1], "datatype": kinds.get(name, "BYTES"), "data": [value]}
        for name, value in row.items()
    ]
    answer = client.post("/v2/models/flight_delay/infer", json={"inputs": tensors}).json()
    assert json.loads(answer["parameters"]["flags"]) == mlflow["flags"]
