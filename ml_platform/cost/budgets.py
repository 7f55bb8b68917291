"""How budgets stand: what was used in their present period, what is left, what follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.cost.config import CostConfig, place_of
from ml_platform.cost.prices import GIB, HOUR, priced
from ml_platform.project import current_project
from ml_platform.spec.budget import Budget, ModelBudget, period_of
from ml_platform.spec_yaml import COMPONENT
from ml_platform.yaml_documents import documents

UNITS = {"cpu_hours": "CPU hours", "memory_gib_hours": "GiB hours of memory", "run_hours": "hours of runs"}


@dataclass(frozen=True)
class DeclaredBudget:
    """A budget and what it is of.

    Attributes
    ----------
    name
        As `cost.yaml` has it; a model's own is called by the model.
    where
        File, line and key.
    """

    name: str
    budget: Budget
    where: str
    model: str | None = None
    team: str | None = None
    job: str | None = None

    @property
    def subject(self) -> str:
        """What it is of, in words."""
        for kind in ("model", "team", "job"):
            if (value := getattr(self, kind)) is not None:
                return value if kind == "team" and str(value).startswith("team:") else f"{kind} {value}"
        return "the project"

    def begins(self, now: datetime) -> datetime:
        """Return when the present period began."""
        return period_of(self.budget.period, now)[0]

    def covers(self, *, model: str = "", team: str = "", job: str = "") -> bool:
        """Whether what belongs to these counts."""
        if self.model is not None:
            return self.model == model
        if self.team is not None:
            return self.team in team.split(",")
        return self.job is None or self.job == job


@dataclass(frozen=True)
class BudgetState:
    """How a budget stands.

    Attributes
    ----------
    used
        Amount → what was used of it in the period.
    share
        The largest share of an amount that was used.
    """

    declared: DeclaredBudget
    begins: datetime
    ends: datetime
    used: dict[str, float]
    share: float
    currency: str

    @property
    def is_used_up(self) -> bool:
        """Whether an amount is used up."""
        return self.share >= 1

    @property
    def is_warning(self) -> bool:
        """Whether it is so far that an alert warns."""
        return self.share >= self.declared.budget.warn_at

    def text(self) -> str:
        """Say how it stands, in one line."""
        amounts = self.declared.budget.amounts()
        parts = [
            f"{self.used[name]:,.3f} of {limit:g} {UNITS.get(name, self.currency)}" for name, limit in amounts.items()
        ]
        return (
            f"{self.declared.name} ({self.declared.subject}, this {self.declared.budget.period}): {'; '.join(parts)} "
            f"({self.share:.0%}), then {self.declared.budget.action}; until {self.ends:%Y-%m-%d} UTC. "
            f"Change {self.declared.where}"
        )

    def row(self) -> dict[str, Any]:
        """Return it as a row."""
        budget = self.declared.budget
        return {
            "budget": self.declared.name,
            "of": self.declared.subject,
            "begins": self.begins,
            "ends": self.ends,
            **{name: self.used.get(name) for name in ("cpu_hours", "price", "memory_gib_hours", "run_hours")},
            "share": self.share,
            "action": budget.action,
            "is_used_up": self.is_used_up,
            "where": self.declared.where,
        }


def project_budgets(config: CostConfig, models: "dict[str, tuple[Budget, str]] | None" = None) -> list[DeclaredBudget]:
    """Return all budgets: of `cost.yaml`, and those of the models' own YAML.

    Parameters
    ----------
    config
        The project's `cost.yaml`.
    models
        Model → budget and place; read from the project when None.

    Raises
    ------
    SpecError
        When a file cannot be used.
    """
    declared = [
        DeclaredBudget(name, one, place_of(("budgets", name)), one.model, one.team, one.job)
        for name, one in config.budgets.items()
    ]
    for model, (budget, where) in (model_budgets() if models is None else models).items():
        declared.append(DeclaredBudget(model, budget, where, model=model))
    return declared


def model_budgets() -> dict[str, tuple[Budget, str]]:
    """Return the budgets that models have of their own, by model, each with its place (raises SpecError)."""
    budgets = {}
    for path in sorted(current_project().defs.rglob("defs.yaml")):
        for document in documents(path):
            own = (document.data or {}).get("attributes") or {} if document.component == COMPONENT else {}
            if own.get("budget"):
                budget = ModelBudget.model_validate(own["budget"])
                if budget.spending is not None:
                    problem = document.problem(("attributes", "budget", "spending"), "")
                    budgets[str(own["name"])] = (budget.spending, f"{path}:{problem.line}: budget.spending")
    return budgets


def budget_states(
    declared: Sequence[DeclaredBudget], uses: pl.DataFrame, config: CostConfig, now: datetime
) -> list[BudgetState]:
    """Return how budgets stand.

    Parameters
    ----------
    declared
        The budgets.
    uses
        Rows of use, from the earliest begin of a period on.
    config
        Rates and currency.
    now
        The instant whose periods are meant.
    """
    uses = priced(uses, config.rate_history)
    states = []
    for one in declared:
        begins, ends = period_of(one.budget.period, now)
        rows = uses.filter(pl.col("time") >= begins, pl.col("time") < ends)
        if one.model is not None:
            rows = rows.filter(pl.col("model") == one.model)
        elif one.team is not None:
            rows = rows.filter(pl.col("team").str.split(",").list.contains(one.team))
        elif one.job is not None:
            rows = rows.filter(pl.col("job") == one.job)
        # The time of a run that several models share is none of theirs; that of their steps is.
        steps = rows["step"] != "" if one.model or one.team else rows["step"] == ""
        used = {
            "cpu_hours": float(rows["cpu_seconds"].sum()) / HOUR,
            "price": float(rows["price"].sum()),
            "memory_gib_hours": float(rows["byte_seconds"].sum()) / GIB / HOUR,
            "run_hours": float(rows.filter(steps)["seconds"].sum()) / HOUR,
        }
        amounts = one.budget.amounts()
        share = max(used[name] / limit for name, limit in amounts.items())
        states.append(BudgetState(one, begins, ends, {name: used[name] for name in amounts}, share, config.currency))
    return states
