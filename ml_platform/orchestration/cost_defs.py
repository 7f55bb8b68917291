"""Costs in Dagster: the table of what was used, and the sensor that holds runs to their budgets."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import dagster as dg

from ml_platform.atomic_files import replace_file
from ml_platform.orchestration.execution import scheduled
from ml_platform.orchestration.resources import Platform
from ml_platform.spec.model import ModelSpec

TABLE = "governance/cost"
KEY = dg.AssetKey(TABLE.split("/"))
SENSOR = "budgets"
TICKS = 64  # of a schedule that are looked at: more than an hour of minutes


@dg.asset(
    key=KEY,
    group_name="governance",
    kinds={"deltalake"},
    owners=["team:platform"],
    description="What runs, commands and serving used: CPU, memory, bytes, by step, model, team and caller.",
)
def cost(platform: Platform) -> dg.MaterializeResult:
    """Take what was measured into the lake, and publish the summary that console and metrics show."""
    from ml_platform.cost.config import cost_config
    from ml_platform.cost.publish import publish_costs
    from ml_platform.cost.use_table import ingest_costs

    report = ingest_costs(platform.lake, platform.settings)
    summary = publish_costs(platform.lake, platform.settings, cost_config())
    return dg.MaterializeResult(
        metadata={
            "new rows": report.rows,
            "files read": report.segments,
            "files ingested": report.deleted,
            f"{summary.currency} in 30 days": sum(one.price for one in summary.by["kind"]),
        }
    )


def cost_defs(specs: Iterable[ModelSpec]) -> dg.Definitions:
    """Build the asset with job and schedule, and the sensor of budgets where there are some."""
    from ml_platform.cost.config import cost_config

    of_asset = scheduled(
        cost, job_name="cost", cron="35 * * * *", description="Take what was measured into the lake, and sum it up."
    )
    models = {spec.name: spec for spec in specs}
    if not cost_config().budgets and all(spec.budget.spending is None for spec in models.values()):
        return of_asset
    return dg.Definitions.merge(of_asset, dg.Definitions(sensors=[budget_sensor(models)]))


def budget_sensor(models: Mapping[str, ModelSpec]) -> dg.SensorDefinition:
    """Build the sensor that looks how budgets stand, alerts, and closes the pools of models that have to wait."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts on budgets that are nearly or wholly used, and holds runs of models whose budget says "
        "`queue` in Dagster's queue, by closing their pools.",
    )
    def budgets(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
        from ml_platform.cost.budgets import project_budgets
        from ml_platform.cost.config import cost_config
        from ml_platform.cost.publish import current_states, tell_of_budgets

        config = cost_config()
        states = current_states(platform.lake, platform.settings, config, project_budgets(config))
        warned = tell_of_budgets(platform.settings, states)
        waiting = {
            model
            for state in states
            if state.is_used_up and state.declared.budget.action == "queue"
            for model, spec in models.items()
            if state.declared.covers(model=model, team=spec.owner)
        }
        hold(context.instance, platform.settings.cost_dir, {f"{model}_training" for model in waiting})
        said = "; ".join(f"{one.declared.name} {one.share:.0%}" for one in warned) or "none is near its end"
        return dg.SkipReason(f"budgets: {said}. Waiting: {', '.join(sorted(waiting)) or 'nothing'}")

    return budgets


def check_policies(specs: Mapping[Path, ModelSpec], definitions: dg.Definitions) -> None:
    """Check models and schedules against the policies of `cost.yaml` (raises SpecError)."""
    from ml_platform.cost.config import Policies, cost_config
    from ml_platform.cost.policies import check_models, check_schedules

    config = cost_config()
    if config.policies == Policies():
        return
    check_models(config, specs)
    crons = {
        one.name: cron
        for one in definitions.schedules or ()
        if isinstance(one, dg.ScheduleDefinition)
        for cron in ([one.cron_schedule] if isinstance(one.cron_schedule, str) else one.cron_schedule)
    }
    check_schedules(config, crons, _shortest_interval)


def _shortest_interval(cron: str) -> float:
    """The least seconds between two of a cron's next ticks."""
    from itertools import islice, pairwise

    from dagster._utils.schedules import cron_string_iterator

    ticks = list(islice(cron_string_iterator(0.0, cron, "UTC"), TICKS))
    return min((later - earlier).total_seconds() for earlier, later in pairwise(ticks))


def hold(instance: dg.DagsterInstance, folder: Path, pools: set[str]) -> None:
    """Close pools, so that runs wait in the queue, and open those again that were closed here before.

    Which limit a pool had is written down before it is closed: a kill between the two restores what is there.
    """
    file = folder / "held_pools.json"
    held: dict[str, int | None] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not pools and not held:
        return
    limits = {one.name: one for one in instance.event_log_storage.get_pool_limits()}
    for pool in pools - held.keys():
        known = limits.get(pool)
        held[pool] = None if known is None or known.from_default else known.limit
    replace_file(file, json.dumps(held).encode())
    for pool in pools:
        instance.event_log_storage.set_concurrency_slots(pool, 0)
    for pool in held.keys() - pools:
        before = held[pool]
        if before is None:
            instance.event_log_storage.delete_concurrency_limit(pool)
        else:
            instance.event_log_storage.set_concurrency_slots(pool, before)
    replace_file(file, json.dumps({pool: held[pool] for pool in pools}).encode())
