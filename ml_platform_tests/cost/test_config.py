"""`cost.yaml`: rates, budgets and policies, and what is said of mistakes."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.cost.budgets import DeclaredBudget, budget_states
from ml_platform.cost.config import CostConfig, NamedBudget, Rates, cost_config, place_of
from ml_platform.cost.policies import check_schedules
from ml_platform.cost.prices import priced
from ml_platform.cost.report import cost_report
from ml_platform.cost.use_table import SCHEMA
from ml_platform.spec.budget import Budget, period_of
from ml_platform.yaml_documents import SpecError

DAY = datetime(2026, 3, 4, 12, tzinfo=UTC)


def uses(*rows: dict[str, object]) -> pl.DataFrame:
    texts = dict.fromkeys(("meter", "kind", "run", "job", "step", "asset", "model", "key", "team", "segment"), "")
    zeros = dict.fromkeys((name for name, kind in SCHEMA.items() if kind.is_numeric()), 0)
    full = [{**texts, **zeros, "time": DAY, **row} for row in rows]
    days: list[Any] = [row["time"] for row in full]
    dated = [{**row, "date": time.date()} for row, time in zip(full, days, strict=True)]
    return pl.DataFrame(dated, schema=SCHEMA)


def config_of(tmp_path: Path, text: str) -> CostConfig:
    path = tmp_path / "cost.yaml"
    path.write_text(text, encoding="utf-8")
    return cost_config(path)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("rates:\n  cpu_hours: 1\n", 2, "did you mean 'cpu_hour'"),
        ("currency: euro\n", 1, "currency"),
        ("budgets:\n  all:\n    period: month\n", 2, "limits nothing"),
        ("budgets:\n  one:\n    price: 3\n    model: a\n    job: b\n", 2, "name one of them"),
        ("budgets:\n  one:\n    price: 3\n    job: b\n    action: queue\n", 2, "write `refuse` for a job"),
        ("earlier_rates:\n- cpu_hour: 1\n", 1, "begin on the same day"),
        ("policies:\n  executors: [spark]\n", 2, "unknown value 'spark'"),
        ("- 1\n", 1, "one mapping"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(SpecError) as error:
        config_of(tmp_path, text)
    assert any(problem.line == line and message in str(problem) for problem in error.value.problems), str(error.value)


def test_a_change_of_rates_leaves_earlier_days_as_they_were(tmp_path: Path) -> None:
    text = "rates: {cpu_hour: 2, since: 2026-03-05}\nearlier_rates:\n- cpu_hour: 1\n"
    history = config_of(tmp_path, text).rate_history
    rows = uses({"cpu_seconds": 3600.0}, {"cpu_seconds": 3600.0, "time": datetime(2026, 3, 5, tzinfo=UTC)})
    assert priced(rows, history)["price"].to_list() == [1.0, 2.0]
    assert history[1].since == date(2026, 3, 5)


def test_reports_sum_by_what_is_asked() -> None:
    rows = uses(
        {"kind": "run", "run": "1", "job": "fit", "seconds": 10.0, "cpu_seconds": 1.0, "peak_bytes": 30},
        {"kind": "run", "run": "1", "job": "fit", "step": "a", "asset": "m/a", "model": "m", "seconds": 4.0,
         "cpu_seconds": 7.0, "peak_bytes": 20},
        {"kind": "serving", "model": "m", "key": "shop", "cpu_seconds": 2.0, "requests": 5, "rows": 9},
    )  # fmt: skip
    config = CostConfig(rates=Rates(cpu_hour=3600.0, memory_gib_hour=0))
    by_model = {row["model"]: row for row in cost_report(rows, config, "model").iter_rows(named=True)}
    assert by_model["m"]["price"] == 9.0
    assert by_model["m"]["requests"] == 5
    assert by_model["m"]["seconds"] == 4.0
    [fit, _] = cost_report(rows, config, "job").iter_rows(named=True)
    assert (fit["job"], fit["seconds"], fit["peak_bytes"], fit["cpu_seconds"]) == ("fit", 10.0, 30, 8.0)
    for by in ("model", "asset", "run", "team", "key", "job", "day", "kind"):
        assert cost_report(rows, config, by)["cpu_seconds"].sum() == 10.0, by


def test_budgets_count_their_own_of_the_present_period() -> None:
    rows = uses(
        {"model": "m", "team": "team:a", "job": "fit", "step": "x", "cpu_seconds": 1800.0},
        {"model": "m", "team": "team:a,team:b", "job": "score", "step": "x", "cpu_seconds": 1800.0},
        {"model": "n", "team": "team:b", "job": "fit", "step": "x", "cpu_seconds": 3600.0},
        {"model": "m", "cpu_seconds": 3600.0, "time": datetime(2026, 2, 28, tzinfo=UTC)},
    )
    budget = Budget(cpu_hours=2)
    declared = [
        DeclaredBudget("m", budget, "here", model="m"),
        DeclaredBudget("b", budget, "here", team="team:b"),
        DeclaredBudget("fit", budget, "here", job="fit"),
        DeclaredBudget("all", budget, "here"),
    ]
    states = budget_states(declared, rows, CostConfig(), DAY)
    assert [round(one.used["cpu_hours"], 6) for one in states] == [1.0, 1.5, 1.5, 2.0]
    assert [one.is_used_up for one in states] == [False, False, False, True]
    assert "2.000 of 2 CPU hours (100%), then warn; until 2026-04-01 UTC" in states[3].text()


def test_periods_begin_and_end_where_the_calendar_says() -> None:
    sunday = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
    assert [moment.date().isoformat() for moment in period_of("week", sunday)] == ["2026-02-23", "2026-03-02"]
    assert [moment.date().isoformat() for moment in period_of("day", sunday)] == ["2026-03-01", "2026-03-02"]
    assert [moment.date().isoformat() for moment in period_of("month", sunday)] == ["2026-03-01", "2026-04-01"]


def test_a_schedule_that_is_too_frequent_is_told_at_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path, "policies:\n  schedule_interval: 1 hour\n")
    monkeypatch.setattr("ml_platform.cost.config.cost_file", lambda: tmp_path / "cost.yaml")
    with pytest.raises(SpecError, match=r"cost.yaml:2: policies.schedule_interval: schedule 'often' \(\*/5 .*300 s"):
        check_schedules(config, {"often": "*/5 * * * *", "daily": "0 3 * * *"}, lambda c: 300 if "/" in c else 86_400)


def test_the_place_of_a_budget_is_its_line(tmp_path: Path) -> None:
    config = config_of(tmp_path, "currency: USD\nbudgets:\n  fit:\n    job: fit\n    price: 3\n")
    assert place_of(("budgets", "fit"), tmp_path / "cost.yaml").endswith("cost.yaml:3: budgets.fit")
    assert isinstance(config.budgets["fit"], NamedBudget)
