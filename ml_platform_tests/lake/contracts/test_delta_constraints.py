"""The contract's rules hold in the table itself, whoever writes it, and follow the contract when it changes."""

import dataframely as dy
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from ml_platform.lake.contracts.contract import one_of
from ml_platform.lake.contracts.delta_constraints import constraints_of, tighten
from ml_platform.lake.ingestion.ingest import IngestReport, ingest
from ml_platform.lake.storage.snapshots import constraints
from ml_platform.lake.storage.tables import Lake

TABLE = "raw/readings"


class Readings(dy.Schema):
    sensor = dy.String(primary_key=True)
    kind = dy.String(nullable=True, check=one_of("warm", "it's cold"))
    value = dy.Float64(nullable=True, min=-40, max_exclusive=100.5)


class Wider(Readings):
    value = dy.Float64(nullable=True, min=-40, max=200)


class Stricter(Readings):
    value = dy.Float64(min=10, max_exclusive=100.5)


GOOD = {"sensor": "a", "kind": "warm", "value": 20.0}


def _load(lake: Lake, contract: type[dy.Schema], *rows: dict) -> IngestReport:
    return ingest(lake, TABLE, contract, pl.DataFrame([GOOD, *rows]), source="test")


def test_the_rules_of_a_contract_become_sql():
    assert list(constraints_of(Readings).values()) == [
        '"sensor" IS NOT NULL',
        "\"kind\" IS NULL OR \"kind\" IN ('warm', 'it''s cold')",
        '"value" IS NULL OR "value" >= -40',
        '"value" IS NULL OR "value" < 100.5',
    ]


@pytest.mark.parametrize("wrong", [{"sensor": None}, {"kind": "cool"}, {"value": -41.0}, {"value": 100.5}])
def test_a_writer_that_knows_nothing_of_the_contract_is_held_to_it(lake, wrong):
    _load(lake, Readings)
    rows = pl.DataFrame([{**GOOD, **wrong}], schema={"sensor": pl.String, "kind": pl.String, "value": pl.Float64})
    with pytest.raises(DeltaError, match="failed validation check"):
        write_deltalake(DeltaTable(lake.location(TABLE)), rows, mode="append")
    with pytest.raises(ValueError, match=r"break a constraint of the table: .*value"):
        lake.append(TABLE, rows)
    assert lake.read(TABLE).collect().height == 1
    lake.append(TABLE, pl.DataFrame([{**GOOD, "sensor": "b", "kind": None, "value": None}], schema=rows.schema))
    assert lake.read(TABLE).collect().height == 2


def test_constraints_follow_the_contract(lake):
    _load(lake, Readings)
    version = lake.version(TABLE)
    _load(lake, Readings)
    assert lake.version(TABLE) == version + 1  # nothing to change but the rows
    assert _load(lake, Wider, {**GOOD, "sensor": "b", "value": 150.0}).rows_written == 2
    assert set(constraints(lake.snapshot(TABLE))) == set(constraints_of(Wider))


def test_a_stricter_contract_names_what_older_rows_break(lake):
    _load(lake, Wider, {**GOOD, "sensor": "b", "value": 5.0})
    assert tighten(lake, TABLE, Stricter) == ('"value" >= 10',)
    assert "value IS NOT NULL" in constraints(lake.snapshot(TABLE)).values()
    assert _load(lake, Stricter).unheld == ()
    assert set(constraints(lake.snapshot(TABLE))) == set(constraints_of(Stricter))
