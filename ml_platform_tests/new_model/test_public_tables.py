"""One command makes of each public table the model that a data scientist would write."""

from datetime import date
from functools import cache
from typing import Any

import polars as pl
import pytest

from ml_platform.new_model.draft import Draft, Wanted, draft_model
from ml_platform_tests.public_tables import public_table

TODAY = date(2024, 6, 1)


@cache
def draft(name: str, target: str) -> Draft:
    """Draft of a table, from each fifth row."""
    rows = pl.read_csv(public_table(name), infer_schema_length=None, try_parse_dates=True).gather_every(5)
    return draft_model(Wanted("a_model", f"raw/{name}", target), rows, today=TODAY)


TABLES: dict[tuple[str, str], dict[str, Any]] = {
    ("telco_churn", "Churn"): {
        "task": "binary",
        "id": "customerID",
        "time": "md5_number_upper",
        "types": {"tenure": "integer", "TotalCharges": "number", "Contract": "string", "SeniorCitizen": "integer"},
        "left out": ["customerID"],
        "block": "rows",
    },
    ("dry_bean", "Class"): {
        "task": "multiclass",
        "id": "row_id",
        "time": "md5_number_upper(row_hash)",
        "types": {"Area": "integer", "Perimeter": "number"},
        "left out": [],
        "block": "rows",
    },
    ("bike_hourly", "cnt"): {
        "task": "regression",
        "id": "instant",
        "time": '"dteday"::TIMESTAMP + to_hours("hr"::INT)',
        "types": {"hr": "integer", "temp": "number", "event_time": "timestamp"},
        "left out": ["casual", "registered", "dteday"],
        "block": "day",
    },
}


@pytest.mark.parametrize(("name", "target"), TABLES)
def test_the_guess_is_what_one_would_write(name: str, target: str) -> None:
    wanted, drafted = TABLES[name, target], draft(name, target)
    spec, types = drafted.spec, {field.name: field.type for field in drafted.spec.inputs}
    assert (spec.task, spec.id, spec.target) == (wanted["task"], wanted["id"], target)
    assert wanted["time"] in drafted.files["spine.sql"]
    assert types | wanted["types"] == types
    features = {field.name for field in spec.inputs if field.feature}
    assert features.isdisjoint([*wanted["left out"], target])
    assert spec.promotion.block == wanted["block"]
    columns = pl.read_csv(public_table(name), n_rows=1).columns
    assert features == set(columns) - {target, *wanted["left out"], wanted["id"]}


def test_what_adds_up_to_the_label_is_asked_about() -> None:
    text = draft("bike_hourly", "cnt").files["defs.yaml"]
    assert "leakage: {allow: [casual, registered]}" in text
    assert "    # - {name: casual" in text
