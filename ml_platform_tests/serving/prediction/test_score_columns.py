"""By column and row by row: the same values, the same matrix, the same answers and flags, whatever the rows are."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from ml_platform.features.expressions.columns import EPOCH
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import OnlineStore
from ml_platform.registry.manifest import Input, champion_target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.http.problems import InvalidRequest
from ml_platform.serving.models.slots import ServedModel
from ml_platform.serving.prediction.score_columns import score_columns
from ml_platform.serving.prediction.score_rows import Scored, score_rows
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, fill_online_store, publish

OFFSETS = ("+00:00", "-04:00", "+05:45")


@pytest.fixture(scope="module")
def online(module_settings: Settings) -> Iterator[OnlineStore]:
    fill_online_store(module_settings)
    with open_online_store(module_settings.online_uri) as store:
        yield store


def load(settings: Settings, online: OnlineStore, inputs: tuple[Input, ...] = INPUTS) -> ServedModel:
    publish(settings, 1, inputs=inputs)
    store = ReleaseStore(settings.releases_dir)
    endpoint = store.endpoint(MODEL)
    assert endpoint is not None
    return ServedModel.load(store, online, champion_target(endpoint), MODEL, keys_dir=settings.keys_dir)


def changed(**changes: dict[str, Any]) -> tuple[Input, ...]:
    """The model's inputs, some of them with other rules."""
    return tuple(msgspec.structs.replace(field, **changes.get(field.name, {})) for field in INPUTS)


def rows(count: int, seed: int, *, nulls: tuple[str, ...] = ("tailnum", "flight_id")) -> list[dict[str, Any]]:
    """Rows whose entities come again, in any order, with nulls, fields left out, and features past their TTL."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        departure = datetime(2013, 7, 1, 9, tzinfo=UTC) + timedelta(seconds=draw.randrange(40 * 86_400), microseconds=7)
        row = {
            **ROW,
            "flight_id": f"flight-{number}",
            "carrier": draw.choice(["AA", "B6", "UA", "ZZ", "", "Ünï", "aa"]),
            "origin": draw.choice(["EWR", "JFK", "LGA"]),
            "tailnum": draw.choice(["N14228", "N0", f"N{number}"]),
            "scheduled_departure": departure.isoformat().replace("+00:00", draw.choice(OFFSETS)),
            "scheduled_arrival": (departure + timedelta(minutes=draw.randrange(-90, 900))).isoformat(),
            "distance": draw.choice([0, 0.0, 1400, draw.uniform(0, 6000)]),
        }
        for name in nulls:
            if draw.random() < 0.2:
                row[name] = None
            elif draw.random() < 0.2:
                del row[name]
        made.append(row)
    return made


def score(model: ServedModel, body: bytes, *, by_column: bool) -> Scored:
    if by_column:
        assert model.decoder.is_long(body)
        return score_columns(model, model.decoder.decode_columns(body), body, "r", None)
    return score_rows(model, model.decoder.decode(body), "r", None)


def check_alike(model: ServedModel, sent: list[dict[str, Any]]) -> Scored:
    """Score both ways, compare all that comes of it, and give it."""
    body = msgspec.json.encode({"rows": sent})
    fast, slow = (score(model, body, by_column=by_column) for by_column in (True, False))
    assert fast.matrix is not None
    assert slow.matrix is not None
    assert fast.matrix.tobytes() == slow.matrix.tobytes()
    assert fast.predictions == slow.predictions
    assert fast.features() == slow.features()
    assert fast.missing == slow.missing
    assert list(fast.flags) == list(slow.flags)
    [batch] = fast.records
    assert batch.ids == [record.id for record in slow.records]
    assert batch.score == [record.score for record in slow.records]
    for sent_row, found, record in zip(sent, batch.as_of, slow.records, strict=True):
        if sent_row.get("scheduled_departure") is not None:  # else it is the instant of each answer
            assert EPOCH + timedelta(microseconds=found) == record.as_of
    return fast


@pytest.mark.parametrize("seed", range(6))
def test_both_ways_say_the_same(module_settings: Settings, online: OnlineStore, seed: int) -> None:
    found = check_alike(load(module_settings, online), rows(120, seed))
    assert found.matrix is not None
    assert np.isnan(found.matrix).any()
    assert len({prediction.probability for prediction in found.predictions}) > 60
    assert found.missing.keys() == {"origin_weather", "carrier_reliability", "aircraft_rotation"}


def test_ten_thousand_rows_say_what_they_say_one_by_one(module_settings: Settings, online: OnlineStore) -> None:
    found = check_alike(load(module_settings, online), rows(10_000, 7))
    assert len(found.predictions) == 10_000


def test_the_same_row_again_and_again_is_answered_as_often(module_settings: Settings, online: OnlineStore) -> None:
    found = check_alike(load(module_settings, online), [ROW] * 50)
    assert len(found.predictions) == 50
    assert found.missing == {}


def test_instants_may_be_null(module_settings: Settings, online: OnlineStore) -> None:
    optional = {"required": False}
    model = load(module_settings, online, changed(scheduled_departure=optional, scheduled_arrival=optional))
    check_alike(model, rows(80, 1, nulls=("scheduled_departure", "scheduled_arrival", "tailnum")))


def test_defaults_and_flags_are_those_of_the_rows(module_settings: Settings, online: OnlineStore) -> None:
    model = load(
        module_settings,
        online,
        changed(
            origin={"required": False, "default": "EWR"},
            distance={"required": False, "maximum": 2000.0, "flagged": ("range", "null")},
            carrier={"allowed": ("AA", "B6", "UA", "ZZ"), "flagged": ("allowed",)},
        ),
    )
    found = check_alike(model, rows(90, 2, nulls=("origin", "distance")))
    assert {flag.kind for flag in found.flags} == {"range", "null", "allowed"}


def test_every_bad_row_among_good_ones_is_named_by_both(module_settings: Settings, online: OnlineStore) -> None:
    model = load(module_settings, online)
    sent = rows(200, 3)
    sent[3]["distance"] = -1
    sent[41]["carrier"] = None
    del sent[41]["dest"]
    sent[90]["scheduled_arrival"] = "2013-07-01T00:00:00"
    sent[199]["who"] = 1
    told = []
    for by_column in (True, False):
        with pytest.raises(InvalidRequest) as refused:
            score(model, msgspec.json.encode({"rows": sent}), by_column=by_column)
        told.append(refused.value.problems)
    assert told[0] == told[1]
    assert [(problem.row, problem.field) for problem in told[0]] == [
        (3, "distance"),
        (41, "carrier"),
        (41, "dest"),
        (90, "scheduled_arrival"),
        (199, "who"),
    ]


@pytest.mark.parametrize(
    ("instant", "is_taken"),
    [
        ("1678-01-01T00:00:00+00:00", True),
        ("1678-01-01T00:30:00+05:00", True),  # in UTC it is 1677 still: what is written counts
        ("1677-12-31T23:30:00-05:00", False),
        ("2261-12-31T23:59:59.999999+00:00", True),
        ("2261-12-31T23:30:00-05:00", True),
        ("2262-01-01T00:30:00+05:00", False),
    ],
)
def test_the_first_and_last_years_end_alike(
    module_settings: Settings, online: OnlineStore, instant: str, is_taken: bool
) -> None:
    model = load(module_settings, online)
    sent = rows(40, 4)
    sent[17] |= {"scheduled_departure": instant, "scheduled_arrival": instant}
    if is_taken:
        check_alike(model, sent)
        return
    for by_column in (True, False):
        with pytest.raises(InvalidRequest, match="row 17, scheduled_departure: wanted a year from 1678 to 2261"):
            score(model, msgspec.json.encode({"rows": sent}), by_column=by_column)
