"""Refuses runs whose budget is used up and says so (`action: refuse`)."""

from collections.abc import Collection

from ml_platform.cost.config import cost_config
from ml_platform.settings import Settings


class BudgetUsedUp(RuntimeError):
    """A run may not begin: which budget is used up, until when, and where it is changed."""


def check_budgets(settings: Settings, job: str, owners: Collection[tuple[str, str]]) -> None:
    """Check that no budget that refuses is used up for a run.

    Parameters
    ----------
    settings
        Where the log of costs is.
    job
        Name of the run's job.
    owners
        Model and team of each of its steps; empty texts for none.

    Raises
    ------
    BudgetUsedUp
        When one is.
    """
    from ml_platform.cost.budgets import project_budgets

    config = cost_config()
    declared = [
        one
        for one in project_budgets(config)
        if one.budget.action == "refuse"
        and any(one.covers(model=model, team=team, job=job) for model, team in owners or [("", "")])
    ]
    if not declared:
        return
    from ml_platform.cost.publish import current_states
    from ml_platform.lake.storage.tables import Lake

    used_up = [
        state for state in current_states(Lake(settings.lake_uri), settings, config, declared) if state.is_used_up
    ]
    if used_up:
        raise BudgetUsedUp("refused, since its budget is used up: " + "; ".join(state.text() for state in used_up))
