"""Every key of a model's YAML that names a column is checked when definitions load, with line and nearest spelling."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from ml_platform.features.views.view import FeatureView
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.orchestration.spine_check import check_spines
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import check_project
from ml_platform.yaml_documents import SpecError

SPINE = "SELECT id, placed_at AS placed, paid_at AS known, plan, customer, amount, late FROM raw.orders\n"
VIEW = "SELECT customer, placed_at AS event_time, amount AS total, late AS was_late FROM raw.orders"
REQUEST = """import polars as pl
from ml_platform.features.expressions.request_features import RequestFeature

REQUEST_FEATURES = {
    "weekday": RequestFeature(pl.col("placed").dt.weekday().cast(pl.Int64)),
    "double": RequestFeature(pl.col("amount") * 2),
    "day_before": RequestFeature(pl.col("placed") - pl.duration(days=1)),
}
"""
MODEL: dict[str, Any] = {
    "name": "late_orders",
    "description": "d",
    "owner": "team:a",
    "task": "binary",
    "target": "late",
    "spine": "spine.sql",
    "request_features": "request_features.py",
    "id": "id",
    "timestamp": "placed",
    "label_available_at": "known",
    "inputs": [
        {"name": "id", "type": "string", "feature": False, "required": False},
        {"name": "placed", "type": "timestamp", "feature": False},
        {"name": "plan", "type": "string"},
        {"name": "customer", "type": "string"},
        {"name": "amount", "type": "number"},
    ],
    "lookups": [{"view": "customers", "keys": {"buyer": "customer"}, "features": ["total"]}],
    "families": ["lightgbm"],
    "weight": "amount",
    "monotone": {"double": "increasing", "customers__total": "decreasing"},
    "leakage": {"allow": ["amount", "double", "customers__total"]},
    "promotion": {
        "block": "customer",
        "slices": ["plan", "weekday", "id", "customers__total", ["plan", "weekday"]],
        "guardrails": {
            "fairness": {"columns": ["plan", ["weekday", "plan"]], "max_selection_difference": 0.1},
        },
    },
    "inference_log": {"redact": ["amount"], "hash": ["customer"]},
    "scoring": {"start": "2024-01-01"},
}
WRONG: list[tuple[str, Any, str]] = [
    # key, what it says, what is said of it
    ("id", "ids", "spine.sql gives no 'ids'; did you mean 'id'?"),
    ("target", "lat", "spine.sql gives no 'lat'; did you mean 'late'?"),
    ("timestamp", "plced", "spine.sql gives no 'plced'; did you mean 'placed'?"),
    ("label_available_at", "knwon", "spine.sql gives no 'knwon'; did you mean 'known'?"),
    ("inputs.2.name", "plam", "spine.sql gives no 'plam'; did you mean 'plan'?"),
    (
        "lookups.0.keys.buyer",
        "custmer",
        "'custmer' is no input and no request feature, and a request looks up by",
    ),
    ("lookups.0.keys.buyr", "customer", "unknown entity column of customers 'buyr'; did you mean 'buyer'?"),
    ("lookups.0.features", ["totl"], "unknown feature of customers 'totl'; did you mean 'total'?"),
    ("lookups.0.knowledge_time", True, "customers has no `created` column"),
    ("leakage.allow.1", "doubl", "unknown feature 'doubl'; did you mean 'double'?"),
    ("leakage.allow.0", "placed", "unknown feature 'placed'"),
    ("promotion.block", "customr", "unknown unit or column of the training set 'customr'; did you mean 'customer'?"),
    ("promotion.block", "dya", "did you mean 'day'?"),
    ("promotion.slices.1", "weekdy", "unknown column of the training set 'weekdy'; did you mean 'weekday'?"),
    ("promotion.slices.0", "customer__total", "did you mean 'customers__total'?"),
    ("promotion.slices.0", "day_before", "unknown column of the training set 'day_before'"),
    ("promotion.slices.4.1", "weekdy", "unknown column of the training set 'weekdy'; did you mean 'weekday'?"),
    ("promotion.guardrails.fairness.columns.0", "plam", "unknown column of the training set 'plam'; did you mean 'pla"),
    ("promotion.guardrails.fairness.columns.1.0", "wekday", "did you mean 'weekday'?"),
    ("inference_log.redact.0", "amonut", "unknown input 'amonut'; did you mean 'amount'?"),
    ("inference_log.hash.0", "custmer", "unknown input 'custmer'; did you mean 'customer'?"),
    ("weight", "amuont", "spine.sql gives no 'amuont'; did you mean 'amount'?"),
    ("weight", "plan", "'plan' of spine.sql is a VARCHAR; a weight is a number"),
    ("monotone.duoble", "increasing", "unknown numeric feature 'duoble'; did you mean 'double'?"),
    ("monotone.customers__totl", "increasing", "did you mean 'customers__total'?"),
    # the target, and one column for two
    ("id", "late", "'late' is the target, which is known only afterwards"),
    ("timestamp", "late", "'late' is the target"),
    ("label_available_at", "late", "'late' is the target"),
    ("inputs.2.name", "late", "'late' is the target, which no request can know; leave it out. Labels of earlier rows"),
    ("lookups.0.keys.buyer", "late", "'late' is the target, which no request can know"),
    ("promotion.block", "late", "'late' is the target itself, whose groups say nothing"),
    ("promotion.slices.0", "late", "'late' is the target itself"),
    ("promotion.guardrails.fairness.columns.0", "late", "'late' is the target itself"),
    ("target", "plan", "'plan' is the target, which no request can know"),
    # types that a part cannot have
    ("inputs.0.type", "number", "'id' is the id, by whose text labels find their scores, and a number has more than"),
    ("inputs.1.type", "string", "'placed' is the `timestamp`, so its type is timestamp, not string"),
    ("inputs.3.type", "integer", "'customer' is declared as integer, 'buyer' of customers is VARCHAR; cast one"),
]
ELSEWHERE = {("target", "plan"): "inputs.2.name", ("inputs.3.type", "integer"): "lookups.0.keys.buyer"}
OF_REGRESSIONS = {"promotion.baseline"}  # has a test of its own, since the model above is none
# Keys of texts that name something else than a column.
OTHERS = {
    *("name", "description", "owner", "target_unit", "spine", "request_features", "card", "tags", "promotion.metric"),
    *(
        "inputs.description",
        "inputs.unit",
        "class_weights",
        "inputs.pattern",
        "lookups.view",
        "lookups.name",
        "promotion.approval.approvers",
        "scoring.daily_at",
        "monitoring.schedule",
    ),
    *("skew.schedule", "retraining.schedule", "recalibration.schedule", "families"),
    # Of brokers and tables; `mapping` names fields of messages, and inputs, which the spec itself checks.
    *(f"stream.source.{name}" for name in ("topic", "servers", "options", "stream", "subjects", "field", "url")),
    *(f"stream.source.{name}" for name in ("table", "path", "pattern", "columns", "texts")),
    *("stream.sink.topic", "stream.sink.table"),
    *("stream.mapping.inputs", "stream.mapping.key", "stream.mapping.timestamp"),
    *("stream.dead_letters.topic", "stream.dead_letters.table"),
}


@pytest.fixture
def tables() -> dict[str, RawTable]:
    columns = {
        "id": {"type": "string"},
        **{name: {"type": "timestamp"} for name in ("placed_at", "paid_at")},
        **{name: {"type": "string"} for name in ("plan", "customer")},
        "amount": {"type": "number"},
        "late": {"type": "boolean"},
    }
    spec = {"name": "raw/orders", "description": "d", "owner": "team:a", "file": {"path": "o.csv"}, "columns": columns}
    return {"raw/orders": raw_table(SourceSpec.model_validate(spec))}


def view(sql: str = VIEW) -> FeatureView:
    return FeatureView(
        name="customers",
        description="d",
        owner="team:a",
        entity=("buyer",),
        columns={
            "total": {"type": "number", "description": "d"},
            "was_late": {"type": "boolean", "description": "d"},
        },
        sql=sql.replace("SELECT customer,", "SELECT customer AS buyer,"),
    )


def told(
    folder: Path,
    tables: dict[str, RawTable],
    model: dict[str, Any],
    *,
    spine: str = SPINE,
    request: str = REQUEST,
    sql: str = VIEW,
) -> list[tuple[int, str, str]]:
    """Line, key and message of each mistake."""
    document = {"type": "ml_platform.orchestration.TabularModel", "attributes": model}
    (folder / "defs.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    (folder / "spine.sql").write_text(spine)
    (folder / "request_features.py").write_text(request)
    views = {"customers": view(sql)}
    try:
        check_spines(check_project(folder, {"customers": ["total", "was_late"]}), views, tables)
    except SpecError as error:
        return [(problem.line, problem.key, problem.message) for problem in error.problems]
    return []


def changed(key: str, value: Any) -> dict[str, Any]:
    """The model with another value at a key; a key of `keys` that does not exist takes the place of those there are."""
    model = yaml.safe_load(yaml.safe_dump(MODEL))
    *parents, last = (int(part) if part.isdigit() else part for part in key.split("."))
    part = model
    for parent in parents:
        part = part[parent]
    if parents and parents[-1] == "keys" and last not in part:
        part.clear()
    part[last] = value
    return model


def test_a_right_model_has_no_problem(tmp_path: Path, tables: dict[str, RawTable]) -> None:
    assert told(tmp_path, tables, MODEL) == []
    assert told(tmp_path, tables, changed("timestamp", "day_before")) == []


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_wrong_column_is_told_with_its_line(
    tmp_path: Path, tables: dict[str, RawTable], key: str, value: Any, said: str
) -> None:
    found = told(tmp_path, tables, changed(key, value))
    mistakes = [(line, message) for line, where, message in found if where == key]
    if elsewhere := ELSEWHERE.get((key, str(value))):
        mistakes = [(line, message) for line, where, message in found if where == elsewhere]
    lines = (tmp_path / "defs.yaml").read_text().splitlines()
    assert any(said in message for _, message in mistakes), found
    if not elsewhere:
        text = str(value[0] if isinstance(value, list) else value).lower()
        shown = {line for line, message in mistakes if said in message}
        assert any(text in "".join(lines[line - 1 : line + 1]) for line in shown), (shown, lines)


def test_a_wrong_column_of_a_regressions_baseline_is_told(tmp_path: Path, tables: dict[str, RawTable]) -> None:
    spine = SPINE.replace("late FROM", "amount * 3 AS late FROM")
    model = {**MODEL, "task": "regression", "promotion": {"baseline": ["customers__total", "double"]}}
    assert told(tmp_path, tables, model, spine=spine) == []
    model["promotion"] = {"baseline": ["customers__total", "dubble"]}
    [(_, key, message)] = told(tmp_path, tables, model, spine=spine)
    assert key == "promotion.baseline.1"
    assert message.startswith("unknown numeric feature 'dubble'; did you mean 'double'?")


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Keys of a spec, and of all parts of it, with their annotations."""
    for name, field in model.model_fields.items():
        inner = [field.annotation]
        while any(get_origin(one) is not None or type(one).__name__ == "UnionType" for one in inner):
            inner = [arg for one in inner for arg in (get_args(one) or (one,)) if arg is not Ellipsis]
            if any(not isinstance(one, type) and get_origin(one) is None for one in inner):  # words of a Literal
                break
        parts = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
        for part in parts:
            yield from leaves(part, (*path, name))
        if not parts:
            yield ".".join((*path, name)), inner


def test_every_key_of_texts_is_checked_or_names_no_column() -> None:
    texts = {key for key, kinds in leaves(ModelSpec) if str in kinds}
    checked = {".".join(part for part in key.split(".") if not part.isdigit()) for key, *_ in WRONG}
    checked = {key.rpartition(".")[0] if key.startswith(("lookups.keys", "monotone")) else key for key in checked}
    assert {"promotion.slices", "leakage.allow", "lookups.keys", "inputs.name"} <= texts
    checked |= OF_REGRESSIONS
    assert texts - OTHERS <= checked, "a new key that names a column wants a check, and a line in WRONG"
    assert not texts & OTHERS & checked


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'pl.col("amount") * 2',
            'pl.col("amuont") * 2',
            "'double': unknown input or earlier request feature 'amuont';",
        ),
        ('pl.col("amount") * 2', 'pl.col("late") * 2', "'double' is computed from the target 'late'"),
        (
            'pl.col("amount") * 2',
            'pl.col("known") - pl.col("placed")',
            "unknown input or earlier request feature 'known'",
        ),
        ('"double"', '"late"', "'late' is the target; give the request feature another name"),
        ('"double"', '"known"', "'known' is `label_available_at`"),
        ('"double"', '"plan"', "'plan' is an input"),
        ('"double"', '"score"', "'score' is a column of the scores' own"),
        ('pl.col("amount") * 2', 'pl.col("placed") - pl.col("placed")', "'double' is of type Duration"),
    ],
)
def test_request_features_of_other_columns_are_told(
    tmp_path: Path, tables: dict[str, RawTable], old: str, new: str, said: str
) -> None:
    model = changed("leakage.allow", [])
    found = told(tmp_path, tables, model, request=REQUEST.replace(old, new))
    assert [key for _, key, _ in found] == ["request_features"], found
    assert said in found[0][2]


def test_a_key_of_the_view_that_nobody_named_is_told(tmp_path: Path, tables: dict[str, RawTable]) -> None:
    found = told(tmp_path, tables, changed("lookups.0.keys", {}))
    assert [key for _, key, _ in found] == ["lookups.0.keys"]
    assert "customers is looked up by 'buyer', which is no input" in found[0][2]
    assert "keys: {buyer: …}" in found[0][2]


@pytest.mark.parametrize(
    "copy",
    ["late AS plan", "late::VARCHAR AS plan", "orders.late AS plan", "LATE AS plan"],
)
def test_the_target_under_another_name_is_no_input(tmp_path: Path, tables: dict[str, RawTable], copy: str) -> None:
    found = told(tmp_path, tables, MODEL, spine=SPINE.replace("plan,", f"{copy},"))
    assert [key for _, key, _ in found] == ["inputs.2.name"]
    assert "'plan' of spine.sql is the target 'late' under another name" in found[0][2]


def test_a_computed_target_is_known_by_its_expression(tmp_path: Path, tables: dict[str, RawTable]) -> None:
    computed = SPINE.replace("late FROM", "paid_at > placed_at AS late FROM")
    assert told(tmp_path, tables, MODEL, spine=computed) == []
    copied = computed.replace("plan,", "(paid_at > placed_at)::TEXT AS plan,")
    assert [key for _, key, _ in told(tmp_path, tables, MODEL, spine=copied)] == ["inputs.2.name"]
    star = "SELECT * REPLACE (late::VARCHAR AS plan), placed_at AS placed, paid_at AS known FROM raw.orders"
    assert [key for _, key, _ in told(tmp_path, tables, MODEL, spine=star)] == ["inputs.2.name"]


@pytest.mark.parametrize(
    ("event_time", "is_refused"), [("placed_at", True), ("paid_at", False), ("placed_at + INTERVAL 9 DAY", False)]
)
def test_a_label_may_be_looked_up_from_when_it_was_known(
    tmp_path: Path, tables: dict[str, RawTable], event_time: str, *, is_refused: bool
) -> None:
    model = changed("lookups.0.features", ["total", "was_late"])
    found = told(tmp_path, tables, model, sql=VIEW.replace("placed_at AS event", f"{event_time} AS event"))
    assert [key for _, key, _ in found] == ["lookups.0.features"] * is_refused
    assert told(tmp_path, tables, MODEL, sql=VIEW) == [], "the feature is not taken"


@pytest.mark.parametrize(
    ("spine", "changes", "said"),
    [
        (
            SPINE.replace("late FROM", "placed_at AS late FROM"),
            {},
            "is a TIMESTAMP WITH TIME ZONE, which is no label of a",
        ),
        (SPINE.replace("late FROM", "[late] AS late FROM"), {}, "is a BOOLEAN[], which is no label of a binary task"),
        (
            SPINE.replace("late FROM", "plan AS late FROM"),
            {"task": "regression", "promotion": {}},
            "is a VARCHAR, which is no label of a regression task",
        ),
    ],
)
def test_types_of_labels_are_told(
    tmp_path: Path, tables: dict[str, RawTable], spine: str, changes: dict[str, Any], said: str
) -> None:
    found = told(tmp_path, tables, MODEL | changes, spine=spine)
    assert said in next(message for _, key, message in found if key == "target")


@pytest.mark.parametrize("sql", ["late AS id", "placed_at AS id", "[id] AS id"])
def test_a_type_that_is_no_id_is_told(tmp_path: Path, tables: dict[str, RawTable], sql: str) -> None:
    model = changed("inputs", MODEL["inputs"][1:])
    found = told(tmp_path, tables, model, spine=SPINE.replace("SELECT id", f"SELECT {sql}"))
    assert "an id is a text, a whole number or a date: cast it" in next(text for _, key, text in found if key == "id")
