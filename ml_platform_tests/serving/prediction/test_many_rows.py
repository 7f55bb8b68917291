"""Many rows go by column: they must be answered, refused and logged as the same rows one by one."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import polars as pl
import pytest

from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import ROW

PATH = "/predict/flight_delay"
CARRIERS = ("AA", "B6", "UA", "ZZ", "", "Ünï")
TAILS = ("N14228", "N0", None)


def rows(count: int = 60) -> list[dict[str, Any]]:
    """Rows of every kind: unknown entities, nulls, fields left out, features past their TTL, other zones."""
    made = []
    for number in range(count):
        departure = datetime(2013, 7, 1, 9, 17, 31, number, tzinfo=UTC) + timedelta(hours=5 * (number % 30))
        row = {
            **ROW,
            "flight_id": f"flight-{number}",
            "carrier": CARRIERS[number % len(CARRIERS)],
            "origin": ("EWR", "JFK", "LGA")[number % 3],
            "tailnum": TAILS[number % 3],
            "scheduled_departure": departure.isoformat(),
            "scheduled_arrival": (departure + timedelta(minutes=200 - number)).isoformat().replace("+00:00", "-04:00"),
            "distance": number * 7.25,
        }
        if number % 7 == 0:
            del row["tailnum"]
        if number % 11 == 0:
            row["flight_id"] = None
        made.append(row)
    return made


@pytest.mark.parametrize("indent", [None, 2])
def test_answers_and_log_equal_those_of_the_rows_alone(
    client: httpx.Client, module_settings: Settings, indent: int | None
) -> None:
    headers = {"X-Request-ID": f"together-{indent}"}
    body = json.dumps({"rows": rows()}, indent=indent)
    together = client.post(PATH, content=body, headers=headers).json()["predictions"]
    alone = []
    for number, row in enumerate(rows()):
        answer = client.post(PATH, json=row, headers={"X-Request-ID": f"alone-{indent}-{number}"})
        alone += answer.json()["predictions"]
    probabilities = [prediction.pop("probability") for prediction in together]
    # The test's graph multiplies matrices, which adds in another order for another number of rows.
    wanted = [prediction.pop("probability") for prediction in alone]
    assert probabilities == pytest.approx(wanted, rel=1e-14)
    assert together == alone
    assert len(set(probabilities)) > 40  # the rows do differ

    lake = Lake(module_settings.lake_uri)
    ingest_log(lake, module_settings)
    table = lake.read("inference_log/flight_delay").collect()
    left = table.filter(pl.col("request_id") == f"together-{indent}").sort("row")
    right = table.filter(pl.col("request_id").str.starts_with(f"alone-{indent}-")).with_columns(
        row=pl.col("request_id").str.split("-").list.last().cast(pl.Int64)
    )
    right = right.sort("row")
    same = [name for name in table.columns if name not in ("request_id", "scored_at", "inputs", "score")]
    assert left.height == len(rows())
    assert left.select(same).equals(right.select(same))
    for sent, logged in zip(rows(), left["inputs"], strict=True):
        assert json.loads(logged) == sent


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"distance": -1}, "distance", "of at least 0"),
        ({"scheduled_departure": "0999-01-01T00:00:00Z"}, "scheduled_departure", "1678 to 2261"),
        ({"scheduled_arrival": "2013-07-01T00:00:00"}, "scheduled_arrival", "with UTC offset"),
        ({"carrier": None}, "carrier", "found null"),
        ({"who": 1}, "who", "is not a field"),
    ],
)
def test_a_bad_row_among_many_is_named(client: httpx.Client, change: dict[str, Any], field: str, message: str) -> None:
    many = rows()
    many[41] |= change
    answer = client.post(PATH, json={"rows": many})
    assert answer.status_code == 422
    [problem] = answer.json()["error"]["problems"]
    assert (problem["row"], problem["field"]) == (41, field)
    assert message in problem["message"]


@pytest.mark.parametrize("key", ['"carrier":', '"carrier" :', '"carrier"\t:', '"carrier"\n:'])
def test_a_key_that_is_there_twice_is_refused_however_it_is_written(client: httpx.Client, key: str) -> None:
    texts = [json.dumps(row) for row in rows()]
    texts[5] = texts[5][:-1] + f',{key} "AA"}}'
    answer = client.post(PATH, content='{"rows": [' + ",".join(texts) + "]}")
    assert answer.status_code == 422
    assert [problem["message"] for problem in answer.json()["error"]["problems"]] == ["appears twice"]


def test_a_text_that_looks_like_a_key_is_no_second_key(client: httpx.Client) -> None:
    many = rows()
    many[3]["dest"] = 'say "dest": x'
    assert client.post(PATH, json={"rows": many}).status_code == 200
