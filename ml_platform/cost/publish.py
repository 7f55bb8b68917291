"""Makes the summary of costs, and tells of budgets."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from ml_platform.cost.budgets import BudgetState, DeclaredBudget, budget_states, project_budgets
from ml_platform.cost.config import CostConfig
from ml_platform.cost.report import cost_report
from ml_platform.cost.summary import DAYS, BudgetLine, Cost, CostSummary, write_summary
from ml_platform.cost.use_table import read_costs
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.alerts.alert import Alert
from ml_platform.monitoring.alerts.conditions import update_condition
from ml_platform.settings import Settings

SHOWN = 50  # of each kind
KIND = "budget"  # of alerts
PLATFORM = "platform"


def publish_costs(lake: Lake, settings: Settings, config: CostConfig, now: datetime | None = None) -> CostSummary:
    """Write the summary that console, HTTP and Prometheus show, and return it."""
    now = now or datetime.now(UTC)
    declared = project_budgets(config)
    since = now - timedelta(days=DAYS)
    uses = read_costs(lake, settings, min([since, *(one.begins(now) for one in declared)]))
    states = budget_states(declared, uses, config, now)
    recent = uses.filter(pl.col("time") >= since)
    by = {}
    for name in ("model", "team", "job", "key", "asset", "kind", "day"):
        rows = cost_report(recent, config, name)
        by[name] = [
            Cost(**{field: row[field] for field in Cost.model_fields if field != "name"}, name=row[name])
            for row in (rows if name == "day" else rows.head(SHOWN)).iter_rows(named=True)
        ]
    lines = [
        BudgetLine(
            name=one.declared.name,
            of=one.declared.subject,
            share=one.share,
            action=one.declared.budget.action,
            text=one.text(),
        )
        for one in states
    ]
    summary = CostSummary(at=now, since=since, currency=config.currency, by=by, budgets=lines)
    write_summary(settings.cost_dir, summary)
    return summary


def current_states(
    lake: Lake, settings: Settings, config: CostConfig, declared: Sequence[DeclaredBudget], now: datetime | None = None
) -> list[BudgetState]:
    """Return how budgets stand now, with what was written down and is not in the table yet."""
    if not declared:
        return []
    now = now or datetime.now(UTC)
    return budget_states(declared, read_costs(lake, settings, min(one.begins(now) for one in declared)), config, now)


def tell_of_budgets(settings: Settings, states: Sequence[BudgetState]) -> list[BudgetState]:
    """Raise or resolve an alert for each budget; return those that warn."""
    for state in states:
        declared, amounts = state.declared, state.declared.budget.amounts()
        alert = Alert(
            model=declared.model or PLATFORM,
            kind=KIND,
            severity="error" if state.is_used_up else "warning",
            title=f"budget {declared.name} is {'used up' if state.is_used_up else f'used by {state.share:.0%}'}",
            body=state.text(),
            facts={name: f"{state.used[name]:.3f} of {limit:g}" for name, limit in amounts.items()},
        )
        update_condition(settings, alert, firing=state.is_warning, subject=declared.name)
    return [state for state in states if state.is_warning]
