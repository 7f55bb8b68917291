"""Contracts: which rows are rejected, why, and what refuses a whole frame."""

import dataframely as dy
import polars as pl
import pytest

from ml_platform.lake.contracts.contract import ROW, apply_contract, describe, one_of
from ml_platform.lake.errors import SchemaMismatch


class Trips(dy.Schema):
    trip = dy.String(primary_key=True, description="Name of the trip.")
    kind = dy.String(check=one_of("air", "rail"))
    minutes = dy.Int64(nullable=True, min=0, max=600, metadata={"unit": "minutes"})
    price = dy.Float64(min=0)
    started = dy.Datetime(time_zone="UTC", nullable=True)

    @dy.rule()
    def long_trips_cost(cls) -> pl.Expr:
        return (cls.minutes.col < 300) | (cls.price.col > 0)


def _text(**changes: list[str | None]) -> pl.DataFrame:
    columns = {
        "trip": ["a", "b", "c"],
        "kind": ["air", "rail", "air"],
        "minutes": ["10", None, "30"],
        "price": ["1.5", "2", "0"],
        "started": ["2013-01-01T10:00:00Z", None, "2013-01-01T10:00:00+02:00"],
    }
    return pl.DataFrame(columns | changes, schema=dict.fromkeys(columns, pl.String))


def _reasons(frame: pl.DataFrame) -> dict[int, list[str]]:
    return dict(apply_contract(frame, Trips, where="trips.csv").rejected.rows())


def test_text_becomes_the_contract_s_types() -> None:
    accepted = apply_contract(_text(), Trips, where="trips.csv").accepted
    assert accepted.height == 3
    assert accepted.drop(ROW).schema == pl.Schema({name: column.dtype for name, column in Trips.columns().items()})
    assert [value.hour if value else None for value in accepted["started"]] == [10, None, 8]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"minutes": ["10", "soon", "1.5"]}, {1: ["minutes: not an integer"], 2: ["minutes: not an integer"]}),
        ({"price": ["1", "nan", "inf"]}, {1: ["price: not a number"], 2: ["price: infinite"]}),
        ({"price": ["1", None, "-1"]}, {1: ["price: missing"], 2: ["price: below 0"]}),
        ({"minutes": ["601", "0", "-1"]}, {0: ["minutes: above 600"], 2: ["minutes: below 0"]}),
        ({"kind": ["air", "sea", "air"]}, {1: ["kind: not one of air, rail"]}),
        ({"started": ["yesterday", None, None]}, {0: ["started: not a timestamp"]}),
        ({"minutes": ["10", "20", "300"]}, {2: ["breaks the rule 'long trips cost'"]}),
        ({"minutes": ["x"] * 3, "price": ["y", "1", "1"]}, {0: ["minutes: not an integer", "price: not a number"]}),
    ],
)
def test_a_broken_row_is_rejected_with_its_reasons(changes: dict[str, list], expected: dict[int, list[str]]) -> None:
    found = _reasons(_text(**changes))
    assert {row: found[row] for row in expected} == expected
    assert found.keys() == expected.keys() or "minutes" in changes


def test_of_duplicates_the_first_sound_row_is_kept() -> None:
    frame = _text(trip=["a", "a", "a"], kind=["sea", "rail", "air"])
    verdict = apply_contract(frame, Trips, where="trips.csv")
    assert verdict.accepted[ROW].to_list() == [1]
    assert dict(verdict.rejected.rows()) == {
        0: ["kind: not one of air, rail"],
        2: ["duplicate of trip (the first is kept)"],
    }


def test_accepted_and_rejected_are_all_rows_once() -> None:
    frame = _text(trip=["a", "a", None], minutes=["x", "700", "10"])
    verdict = apply_contract(pl.concat([frame] * 5), Trips, where="trips.csv")
    rows = sorted([*verdict.accepted[ROW], *verdict.rejected[ROW]])
    assert rows == list(range(15))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            _text().drop("price"),
            r"trips.csv: column 'price': wanted Float64, found no such column\. Correct the source",
        ),
        (_text().rename({"minutes": "minute"}), r"'minutes': wanted Int64, found no such column \(is it 'minute'\?\)"),
        (_text().with_columns(extra=pl.lit(1)), "column 'extra': not wanted, found Int32"),
        (_text().with_columns(minutes=pl.lit(True)), "column 'minutes': wanted Int64, found Boolean"),
    ],
)
def test_wrong_columns_refuse_the_frame(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(SchemaMismatch, match=message):
        apply_contract(frame, Trips, where="trips.csv")


def test_a_contract_describes_itself() -> None:
    facts = {column.name: column for column in describe(Trips)}
    assert facts["trip"].primary_key
    assert facts["trip"].description == "Name of the trip."
    assert facts["minutes"].constraints == ("at least 0", "at most 600")
    assert facts["minutes"].unit == "minutes"
    assert facts["kind"].constraints == ("one of air, rail",)
