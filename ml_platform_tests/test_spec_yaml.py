"""A mistake in a `defs.yaml` names the file, the line, the key, what is allowed and the nearest right spelling."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import check_project, load_spec
from ml_platform.yaml_documents import SpecError
from ml_platform_tests.paths import PROJECT_ROOT

GOOD = """\
type: ml_platform.orchestration.TabularModel
attributes:
  name: churn
  description: Who leaves next month.
  owner: crm@example.com
  task: binary
  target: left
  spine: spine.sql
  id: customer
  timestamp: at
  label_available_at: known_at
  inputs:
    - {name: customer, type: string, feature: false}
    - {name: at, type: timestamp, feature: false}
    - {name: plan, type: string}
  lookups:
    - view: usage
      features: [calls]
  families: [logistic_regression]
  scoring: {start: 2024-01-01}
"""
PLAN = "plan, type: string}"  # on line 15
LOG = "  scoring: {start: 2024-01-01}\n"
LOGS = "  inference_log: {"
COST = "{false_positive: 1, false_negative: 5}"
FAIR = """\
  promotion:
    guardrails:
      fairness: {columns: [plan], max_selection_difference: 0.1}
      optional: [selection_rate]
"""
VIEWS = {"usage": ["calls", "minutes"], "payments": ["late"]}


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "churn") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "spine.sql").write_text("SELECT 1")
        path = folder / "defs.yaml"
        path.write_text(text)
        return path

    return _write


def test_a_good_file_gives_the_spec(write):
    spec = load_spec(write(GOOD), VIEWS)
    assert isinstance(spec, ModelSpec)
    assert (spec.name, spec.metric, spec.lookups[0].view) == ("churn", "roc_auc", "usage")


@pytest.mark.parametrize(
    ("wrong", "right", "line", "key", "parts"),
    [
        ("task: binary", "task: clasification", 6, "task", ["'clasification'", "binary, multiclass, regression"]),
        ("task: binary", "task: binry", 6, "task", ["did you mean 'binary'?"]),
        ("  target: left", "  taget: left", 7, "taget", ["unknown key 'taget'", "did you mean 'target'?"]),
        ("    - view: usage", "    - view: usge", 17, "lookups.0.view", ["unknown feature view 'usge'", "'usage'"]),
        ("[calls]", "[cals]", 18, "lookups.0.features", ["unknown feature of usage 'cals'", "'calls'", "minutes"]),
        ("spine: spine.sql", "spine: spin.sql", 8, "spine", ["no file 'spin.sql'", "'spine.sql'"]),
        ("type: string}\n  lookups", "type: strng}\n  lookups", 15, "inputs.2.type", ["did you mean 'string'?"]),
        ("[logistic_regression]", "[ridge]", 19, "families", ["['ridge'] cannot do task 'binary'"]),
        ("2024-01-01", "first of may", 20, "scoring.start", ["first of may"]),
        ("name: churn", "name: Churn model", 3, "name", ["pattern", "Churn model"]),
        (PLAN, "plan, type: string, allowd: [free]}", 15, "inputs.2.allowd", ["did you mean 'allowed'?"]),
        (PLAN, "plan, type: string, allowed: [no]}", 15, "inputs.2.allowed", ["False is no string; quote"]),
        (PLAN, "plan, type: number, allowed: [1]}", 15, "inputs.2.allowed", ["numbers take minimum and maximum"]),
        (PLAN, "plan, type: string, minimum: 1}", 15, "inputs.2.minimum", ["a string has no minimum"]),
        (PLAN, "plan, type: integer, pattern: a}", 15, "inputs.2.pattern", ["an integer has no pattern; only strings"]),
        (PLAN, "plan, type: string, pattern: ^a$}", 15, "inputs.2.pattern", ["'^', is not needed: the whole text"]),
        (PLAN, "plan, type: string, pattern: 7}", 15, "inputs.2.pattern", ["string"]),
        (
            PLAN,
            "plan, type: string, allowed: [free], pattern: f.*}",
            15,
            "inputs.2.pattern",
            ["which values are allowed, or their pattern, not both"],
        ),
        (
            PLAN,
            "plan, type: string, pattern: '[a-z]+', default: Free}",
            15,
            "inputs.2.default",
            ["'Free' does not match the field's own pattern, [a-z]+"],
        ),
        (
            PLAN,
            "plan, type: number, minimum: 3, maximum: 1}",
            15,
            "inputs.2.maximum",
            ["1 is less than the minimum, 3"],
        ),
        (
            PLAN,
            "plan, type: string, nulls: flg}",
            15,
            "inputs.2.nulls",
            ["did you mean 'flag'?", "accept, flag, reject"],
        ),
        (PLAN, "plan, type: string, on_violation: warn}", 15, "inputs.2.on_violation", ["Allowed: flag, reject"]),
        (
            PLAN,
            "plan, type: string, allowed: [free, pro], default: fre}",
            15,
            "inputs.2.default",
            ["did you mean 'free'?"],
        ),
        (PLAN, "plan, type: integer, default: 1.5}", 15, "inputs.2.default", ["1.5 is no integer"]),
        (PLAN, "plan, type: string, nulls: flag, default: free}", 15, "inputs.2.default", ["leave `nulls` out"]),
        (
            PLAN,
            "plan, type: string, required: false, nulls: reject}",
            15,
            "inputs.2.nulls",
            ["required: false cannot be set together"],
        ),
        (LOG, f"{LOG}  threshold: 1.5\n", 21, "threshold.value", ["less than or equal to 1; found 1.5"]),
        (LOG, f"{LOG}  threshold: yes\n", 21, "threshold", ["wanted a number from 0 to 1, best_f1, or cost", "True"]),
        (LOG, f"{LOG}  threshold: best_f2\n", 21, "threshold", ["found 'best_f2'"]),
        (LOG, f"{LOG}  threshold: {{costs: 1}}\n", 21, "threshold.costs", ["did you mean 'cost'?"]),
        (LOG, f"{LOG}  threshold: {{value: 0.1, cost: {COST}}}\n", 21, "threshold", ["not both"]),
        (LOG, f"{LOG}  threshold: {{cost: {{false_positive: 1}}}}\n", 21, "threshold.cost.false_negative", ["missing"]),
        ("binary\n", "multiclass\n  threshold: 0.3\n", 7, "threshold", ["only a binary model has one"]),
        ("binary\n", "multiclass\n  quantile: 0.3\n", 7, "quantile", ["only a regression has one"]),
        (
            LOG,
            f"{LOG}  promotion:\n    slices: [plan, [plan, plan]]\n",
            22,
            "promotion.slices",
            ["wanted different columns; found ['plan', 'plan']"],
        ),
        (
            LOG,
            f"{LOG}  promotion: {{slices: [[plan, at], plan, [at, plan]]}}\n",
            21,
            "promotion.slices",
            ["'at, plan' makes the same groups as an entry before; keep one"],
        ),
        (LOG, f"{LOG}  promotion: {{slices: plan}}\n", 21, "promotion.slices", ["a list was wanted", "'plan'"]),
        (LOG, f"{LOG}  promotion: {{slices: [[1]]}}\n", 21, "promotion.slices", ["wanted a column, or a list", "[1]"]),
        (
            LOG,
            f"{LOG}  promotion:\n    guardrails:\n      max_calibration: 0.1\n",
            23,
            "promotion.guardrails.max_calibration",
            ["did you mean 'max_calibration_error'?"],
        ),
        (
            LOG,
            f"{LOG}  promotion:\n    guardrails:\n      optional: [fairness]\n",
            23,
            "promotion.guardrails.optional.0",
            ["unknown value 'fairness'", "selection_rate"],
        ),
        (
            LOG,
            f"{LOG}  promotion:\n    guardrails:\n      fairness: {{columns: [plan]}}\n",
            23,
            "promotion.guardrails.fairness",
            ["wants max_selection_difference, max_true_positive_difference, or both"],
        ),
        (
            "binary\n",
            f"multiclass\n{FAIR}",
            9,
            "promotion.guardrails.fairness",
            ["does not apply to task 'multiclass'"],
        ),
        (
            "task: binary",
            "task: regression\n  promotion: {guardrails: {max_calibration_error: 0.1, max_changed_decisions: 0.1}}",
            7,
            "promotion.guardrails.max_changed_decisions",
            ["does not apply to task 'regression': a number is no decision; bound `max_score_shift` instead"],
        ),
        ("binary\n", f"multiclass\n{FAIR}", 10, "promotion.guardrails.optional.0", ["'selection_rate' does not apply"]),
        ("2024-01-01}", "0001-01-01}", 20, "scoring.start", ["1678-01-01"]),
        (LOG, f"{LOG}  split: {{holdout: 0 days}}\n", 21, "split.holdout", ["longer than 0"]),
        (LOG, f"{LOG}  split: {{gap: -1 days}}\n", 21, "split.gap", ["that is not negative", "-1 day"]),
        (LOG, f"{LOG}  split: {{history: 9999999999 weeks}}\n", 21, "split.history", ["at most 999,999,999 days"]),
        (LOG, f"{LOG}  monitoring: {{window: 0 hours}}\n", 21, "monitoring.window", ["longer than 0"]),
        (LOG, f"{LOG}  skew: {{window: PT0S}}\n", 21, "skew.window", ["longer than 0"]),
        (
            "2024-01-01}",
            "2024-01-01, end: 2023-12-31}",
            20,
            "scoring.end",
            ["is before the start, 2024-01-01"],
        ),
        (LOG, f"{LOG}{LOGS}redct: [plan]}}\n", 21, "inference_log.redct", ["did you mean 'redact'?"]),
        (LOG, f"{LOG}{LOGS}redact: [plon]}}\n", 21, "inference_log.redact.0", ["did you mean 'plan'?"]),
        (LOG, f"{LOG}{LOGS}redact: [plan, customer]}}\n", 21, "inference_log.redact.1", ["is the id"]),
        (LOG, f"{LOG}{LOGS}hash: [at]}}\n", 21, "inference_log.hash.0", ["'at' is the timestamp"]),
        (LOG, f"{LOG}{LOGS}hash: [plan], redact: [plan]}}\n", 21, "inference_log.hash.0", ["as well"]),
        (LOG, f"{LOG}{LOGS}sample: 0}}\n", 21, "inference_log.sample", ["greater than 0"]),
    ],
)
def test_a_mistake_is_placed_and_explained(write, wrong, right, line, key, parts):
    path = write(GOOD.replace(wrong, right, 1))
    with pytest.raises(SpecError) as caught:
        load_spec(path, VIEWS)
    problems = {problem.key: problem for problem in caught.value.problems}
    assert problems[key].line == line
    assert str(caught.value).startswith(f"{path}:")
    for part in parts:
        assert part in problems[key].message


def test_a_missing_key_says_what_it_means(write):
    with pytest.raises(SpecError, match=r"defs.yaml:2: timestamp: is missing .*instant of prediction"):
        load_spec(write(GOOD.replace("  timestamp: at\n", "")), VIEWS)


def test_a_key_written_twice_is_refused(write):
    with pytest.raises(SpecError, match=r"defs.yaml:7: task: stands twice, first on line 6"):
        load_spec(write(GOOD.replace("  target: left", "  task: regression\n  target: left")), VIEWS)


def test_broken_yaml_names_the_line(write):
    with pytest.raises(SpecError, match=r"defs.yaml:\d+: YAML: .*check the indentation"):
        load_spec(write(GOOD.replace("  task: binary", "  task: [binary")), VIEWS)


SOURCE = """\
type: ml_platform.orchestration.SourceTable
attributes:
  name: raw/orders
  description: One order.
  owner: team:shop
  file: {path: orders.csv}
  columns:
    id: {type: string, key: true}
    amount: {type: number, minimum: 0}
"""


@pytest.mark.parametrize(
    ("wrong", "right", "line", "key", "said"),
    [
        ("owner:", "ower:", 5, "ower", "unknown key 'ower'; did you mean 'owner'?"),
        ("file: {path:", "file: {paht:", 6, "file.paht", "did you mean 'path'?"),
        ("type: number", "type: nubmer", 9, "columns.amount.type", "did you mean 'number'?"),
        ("minimum: 0", "minimun: 0", 9, "columns.amount.minimun", "did you mean 'minimum'?"),
        ("type: number, m", "type: date, m", 9, "columns.amount", "minimum and maximum are for integer and number"),
        ("  file: {path: orders.csv}\n", "", 2, "attributes", "one of file, folder and sql is wanted, found none"),
    ],
)
def test_a_mistake_in_a_source_is_placed_and_explained(write, tmp_path, wrong, right, line, key, said):
    write(SOURCE.replace(wrong, right, 1))
    with pytest.raises(SpecError) as caught:
        check_project(tmp_path, VIEWS)
    problems = {problem.key: problem for problem in caught.value.problems}
    assert problems[key].line == line
    assert said in problems[key].message


def test_two_tables_may_not_share_a_name(write, tmp_path):
    write(SOURCE + "---\n" + SOURCE)
    with pytest.raises(SpecError, match="'raw/orders' is already the table of"):
        check_project(tmp_path, VIEWS)


def test_the_mistakes_of_all_files_are_reported_together(write, tmp_path):
    write(GOOD.replace("task: binary", "task: bin"), "first")
    write(GOOD.replace("owner:", "ower:"), "second")
    with pytest.raises(SpecError) as caught:
        check_project(tmp_path, VIEWS)
    assert {problem.path.parent.name for problem in caught.value.problems} == {"first", "second"}


def test_two_models_may_not_share_a_name(write, tmp_path):
    write(GOOD, "first")
    write(GOOD, "second")
    with pytest.raises(SpecError, match="'churn' is already the model of"):
        check_project(tmp_path, VIEWS)


def test_an_input_may_not_take_the_name_of_a_score_column(write):
    text = GOOD.replace("{name: plan, type: string}", "{name: date, type: string}")
    with pytest.raises(SpecError, match=r"\['date'\] are columns of the scores' own; name them otherwise"):
        load_spec(write(text), VIEWS)


GUIDES_WITH_PARTS_OF_A_MODEL = (
    "models/input-checks",
    "features/leakage",
    "monitoring/skew",
    "serving/inference-log",
    "serving/inputs",
)


def test_the_model_in_the_guides_is_a_valid_one_and_so_are_the_keys_shown_apart() -> None:
    def blocks(page: str) -> list[dict[str, Any]]:
        text = (PROJECT_ROOT / "docs" / "how-to" / f"{page}.md").read_text("utf-8")
        return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]

    [model] = blocks("models/add-a-model")
    spec = ModelSpec.model_validate(model["attributes"])
    assert (spec.name, spec.lookups[0].keys) == ("late_orders", {"customer_id": "customer"})
    for page in GUIDES_WITH_PARTS_OF_A_MODEL:
        [part] = blocks(page)
        for key, value in part.items():
            annotation: Any = ModelSpec.model_fields[key].annotation
            TypeAdapter(annotation).validate_python(value)
