"""What a run would find in a spine or its request features is found when the definitions load, with its place."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform.features.views.view import FeatureView
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.registry import declared_tables
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.orchestration.component import project_views
from ml_platform.orchestration.spine_check import check_spines
from ml_platform.spec_yaml import check_project
from ml_platform.yaml_documents import SpecError
from ml_platform_tests.paths import PROJECT_ROOT

SPINE = """SELECT
    id, placed_at AS placed, placed_at AS known,
    plan, amount, late
FROM raw.orders
"""
MODEL = {
    "name": "late_orders",
    "description": "d",
    "owner": "team:a",
    "task": "binary",
    "target": "late",
    "spine": "spine.sql",
    "id": "id",
    "timestamp": "placed",
    "label_available_at": "known",
    "inputs": [{"name": "plan", "type": "string"}, {"name": "amount", "type": "number"}],
    "families": ["lightgbm"],
    "scoring": {"start": "2024-01-01"},
}


@pytest.fixture
def tables() -> dict[str, RawTable]:
    columns = {
        "id": {"type": "string"},
        "placed_at": {"type": "timestamp"},
        "plan": {"type": "string"},
        "amount": {"type": "number"},
        "late": {"type": "boolean"},
    }
    spec = {"name": "raw/orders", "description": "d", "owner": "team:a", "file": {"path": "o.csv"}, "columns": columns}
    return {"raw/orders": raw_table(SourceSpec.model_validate(spec))}


def problems(folder: Path, tables: dict[str, RawTable], spine: str = SPINE, request: str = "", **changes) -> str:
    model = {"type": "ml_platform.orchestration.TabularModel", "attributes": MODEL | changes}
    (folder / "defs.yaml").write_text(yaml.safe_dump(model, sort_keys=False))
    (folder / "spine.sql").write_text(spine)
    if request:
        (folder / "request_features.py").write_text(request)
    try:
        check_spines(check_project(folder, {}), {}, tables)
    except SpecError as error:
        return str(error).replace(f"{folder}/", "")
    return ""


def test_a_right_model_and_the_projects_own_have_no_problem(tmp_path: Path, tables: dict[str, RawTable]) -> None:
    assert problems(tmp_path, tables) == ""
    defs = PROJECT_ROOT / "ml_platform" / "defs"
    views = project_views(defs)
    specs = check_project(defs, {name: view.columns.keys() for name, view in views.items()})
    check_spines(specs, views, declared_tables())


@pytest.mark.parametrize(
    ("spine", "said"),
    [
        (SPINE.replace("amount, late", "amuont, late"), 'spine.sql:3: sql: Binder Error: Referenced column "amuont"'),
        (SPINE.replace("amount,", "amount,,"), "spine.sql:3: sql: Parser Error: syntax error at or near"),
        (SPINE.replace("id,", "lower(amount, 3) AS id,"), "spine.sql:2: sql: Binder Error: No function matches"),
        (SPINE.replace("late\n", "late AS is_late\n"), "gives no 'late'; did you mean 'is_late'? It gives: id, placed"),
        (
            SPINE.replace("placed_at AS placed", "placed_at::TIMESTAMP AS placed"),
            "give it a zone: col AT TIME ZONE 'UTC'",
        ),
        (SPINE.replace("placed_at AS known", "placed_at::DATE AS known"), "'known' of spine.sql is a DATE"),
        (SPINE.replace("plan,", ""), "spine.sql gives no 'plan'"),
        (SPINE.replace("plan,", "plan, lower(plan) AS Plan,"), "spine.sql:1: sql: it gives 'plan' more than once"),
        (SPINE.replace("amount,", "placed_at AS amount,"), "from which no number can be made"),
        (SPINE.replace("plan,", "[plan] AS plan,"), "'plan' of spine.sql is a VARCHAR[], from which no string"),
    ],
)
def test_mistakes_of_a_query_are_told_with_their_place(
    tmp_path: Path, tables: dict[str, RawTable], spine: str, said: str
) -> None:
    assert said in problems(tmp_path, tables, spine)


def test_all_mistakes_of_a_model_are_told_at_once(tmp_path: Path, tables: dict[str, RawTable]) -> None:
    told = problems(
        tmp_path,
        tables,
        request="raise RuntimeError('no luck')",
        request_features="request_features.py",
        target="delayed",
        id="order",
    )
    assert "request_features: RuntimeError: no luck" in told
    assert "defs.yaml:7: target: spine.sql gives no 'delayed'" in told
    assert "defs.yaml:9: id: spine.sql gives no 'order'" in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"owner": "bob"}, "defs.yaml:5: owner: 'bob' is no owner: wanted an e-mail address, or team:<name>"),
        (
            {"monitoring": {"schedule": "61 * * * *"}},
            "monitoring.schedule: '61 * * * *' is no cron schedule: wanted",
        ),
        ({"skew": {"schedule": "0 0 31 2 *"}}, "skew.schedule: '0 0 31 2 *' is no cron schedule"),
        ({"retraining": {"schedule": "0 6 * * 8"}}, "retraining.schedule: '0 6 * * 8' is no cron schedule"),
        ({"retraining": {"schedule": None}, "owner": "shop@example.com"}, ""),
    ],
)
def test_what_dagster_would_refuse_is_told_with_its_line(
    tmp_path: Path, tables: dict[str, RawTable], changes: dict[str, Any], said: str
) -> None:
    message = problems(tmp_path, tables, **changes)
    assert said in message
    assert bool(message) == bool(said)


def test_what_cannot_be_known_without_data_is_not_judged(tmp_path: Path, tables: dict[str, RawTable]) -> None:
    assert problems(tmp_path, tables, SPINE.replace("raw.orders", "raw.elsewhere")) == ""
    assert problems(tmp_path, tables, SPINE.replace("raw.orders", "raw.orders AT (VERSION => 3)")) == ""


def test_a_key_that_nothing_gives_is_told(tmp_path: Path, tables: dict[str, RawTable]) -> None:
    view = FeatureView(
        name="customers",
        description="d",
        owner="team:a",
        entity=("customer",),
        columns={"orders": {"type": "number", "description": "d"}},
        sql="SELECT id AS customer, placed_at AS event_time, amount AS orders FROM raw.orders",
    )
    model = MODEL | {"lookups": [{"view": "customers", "keys": {"customer": "custmer"}}]}
    document = {"type": "ml_platform.orchestration.TabularModel", "attributes": model}
    (tmp_path / "defs.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "spine.sql").write_text(SPINE)
    specs = check_project(tmp_path, {"customers": ["orders"]})
    with pytest.raises(SpecError, match=r"lookups\.0\.keys\.customer: 'custmer' is no input and no request"):
        check_spines(specs, {"customers": view}, tables)


def test_a_file_of_request_features_that_is_not_named_is_told(tmp_path, tables):
    request = "REQUEST_FEATURES = {}\n"
    told = problems(tmp_path, tables, request=request)
    assert "request_features: request_features.py lies beside this file and is not used" in told
    assert "write `request_features: request_features.py`" in told
    assert not problems(tmp_path, tables, request=request, request_features="request_features.py")
