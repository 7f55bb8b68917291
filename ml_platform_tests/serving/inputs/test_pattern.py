"""An input's pattern holds on every way in: refused or flagged, with the same words, counted and documented."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from ml_platform.registry.manifest import Input
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.inputs.test_contract import counted
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, fill_online_store, publish

PATH = f"/predict/{MODEL}"
TAIL = r"N\d{1,5}[A-Z]{0,2}"
REFUSED = f'wanted a string that matches {TAIL}, found "n14228"'
FLAGGED = 'wanted a string that matches [A-Z]{3}, found "Houston"'
BAD = {**ROW, "tailnum": "n14228"}
ODD = {**ROW, "dest": "Houston"}


def contract() -> tuple[Input, ...]:
    changes: dict[str, dict[str, Any]] = {
        "tailnum": {"pattern": TAIL},
        "dest": {"pattern": "[A-Z]{3}", "flagged": ("pattern",)},
    }
    return tuple(msgspec.structs.replace(field, **changes.get(field.name, {})) for field in INPUTS)


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[Server]:
    fill_online_store(module_settings)
    publish(module_settings, 1, inputs=contract())
    server = start_server(module_settings)
    yield server
    server.stop()


def parquet(rows: list[dict[str, Any]]) -> dict[str, Any]:
    file = io.BytesIO()
    pl.DataFrame(rows).write_parquet(file)
    return {"content": file.getvalue(), "headers": {"Content-Type": "application/vnd.apache.parquet"}}


def csv(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"content": pl.DataFrame(rows).write_csv(), "headers": {"Content-Type": "text/csv"}}


def tensors(rows: list[dict[str, Any]]) -> dict[str, Any]:
    made = [
        {
            "name": name,
            "shape": [len(rows)],
            "datatype": "FP64" if name == "distance" else "BYTES",
            "data": [row[name] for row in rows],
        }
        for name in ROW
    ]
    return {"json": {"inputs": made}}


MLFLOW = f"/models/{MODEL}/invocations"
WAYS: dict[str, tuple[str, int, Callable[[list[dict[str, Any]]], dict[str, Any]], int]] = {  # path, rows, body, status
    "one row": (PATH, 1, lambda rows: {"json": rows[0]}, 422),
    "few rows": (PATH, 3, lambda rows: {"json": {"rows": rows}}, 422),
    "many rows, by column": (PATH, 60, lambda rows: {"json": {"rows": rows}}, 422),
    "MLflow": (MLFLOW, 3, lambda rows: {"json": {"dataframe_records": rows}}, 400),
    "CSV": (MLFLOW, 3, csv, 400),
    "Parquet": (MLFLOW, 60, parquet, 400),
    "Databricks": (f"/serving-endpoints/{MODEL}/invocations", 3, lambda rows: {"json": {"instances": rows}}, 400),
    "tensors": (f"/v2/models/{MODEL}/infer", 3, tensors, 400),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_match_is_refused_or_flagged(client: httpx.Client, way: str) -> None:
    path, count, body, status = WAYS[way]
    rows = [ROW] * (count - 1)
    refused = client.post(path, **body([*rows, BAD]))
    assert refused.status_code == status
    assert json.dumps(REFUSED)[1:-1] in refused.text
    answered = client.post(path, **body([*rows, ODD]))
    assert answered.status_code == 200, answered.text
    found = answered.json()
    flags = found["flags"] if "flags" in found else json.loads(found["parameters"]["flags"])
    assert flags == [{"row": count - 1, "field": "dest", "message": FLAGGED}]


def test_all_that_is_wrong_is_told_at_once_and_counted(client: httpx.Client) -> None:
    before = counted(client)
    row = {**BAD, "carrier": 7, "distance": 9000}
    answer = client.post(PATH, json={"rows": [row, ROW, BAD]})
    problems = answer.json()["error"]["problems"]
    assert [(one["row"], one["field"]) for one in problems] == [
        (0, "carrier"),
        (0, "tailnum"),
        (0, "distance"),
        (2, "tailnum"),
    ]
    client.post(PATH, json=ODD)
    after = counted(client)
    changes = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert changes == {"carrier type": 1, "tailnum pattern": 2, "distance range": 1, "dest pattern": 1}


def test_null_and_nothing_match(client: httpx.Client) -> None:
    left_out = {name: value for name, value in ROW.items() if name != "tailnum"}
    for row in ({**ROW, "tailnum": None}, left_out):
        assert client.post(PATH, json=row).status_code == 200
        assert client.post(PATH, json={"rows": [row] * 60}).status_code == 200


def test_the_whole_text_counts_and_long_ones_match_nothing(client: httpx.Client) -> None:
    for text in ("N14228\n", " N14228", "N14228ABC", "", "N" + "1" * 100_000):
        answer = client.post(PATH, json={**ROW, "tailnum": text})
        assert answer.status_code == 422, text[:10]
        [problem] = answer.json()["error"]["problems"]
        assert problem["message"].startswith(f"wanted a string that matches {TAIL}, found ")


def test_other_spellings_of_a_body_are_checked_too(client: httpx.Client) -> None:
    """A timestamp without seconds takes the slow way, an escape hides the text."""
    for row in ({**BAD, "scheduled_departure": "2013-07-01T12:00Z"}, BAD):
        text = json.dumps(row).replace("n14228", "\\u006e14228")
        answer = client.post(PATH, content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert answer.json()["error"]["problems"] == [{"field": "tailnum", "message": REFUSED}]


def test_openapi_has_it_where_it_is_refused(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    fields = document["components"]["schemas"][f"{MODEL}_row"]["properties"]
    assert fields["tailnum"]["pattern"] == "^(?:N[0-9]{1,5}[A-Z]{0,2})$"
    assert fields["tailnum"]["maxLength"] == 1000
    assert "pattern" not in fields["dest"]
    assert fields["dest"]["x-expected"] == {"pattern": "^(?:[A-Z]{3})$", "maxLength": 1000}
    assert f"matches `{TAIL}`" in document["paths"][PATH]["post"]["description"]
