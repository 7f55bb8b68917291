"""Budgets in Dagster: pools that are closed and opened again, runs that are refused, policies on schedules."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import MAX_RETRIES_TAG

from ml_platform.cost.records import RUN, Use, UseLog
from ml_platform.orchestration.cost_defs import _shortest_interval, check_policies, hold
from ml_platform.orchestration.execution import in_process_executor
from ml_platform.settings import Settings
from ml_platform.yaml_documents import SpecError


def limits(instance: dg.DagsterInstance) -> dict[str, int]:
    return {one.name: one.limit for one in instance.event_log_storage.get_pool_limits() if one.limit is not None}


def test_pools_are_closed_and_get_back_what_they_had(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        instance.event_log_storage.set_concurrency_slots("a_training", 3)
        hold(instance, tmp_path, set())
        assert not (tmp_path / "held_pools.json").exists()
        for _ in range(2):
            hold(instance, tmp_path, {"a_training", "b_training"})
            assert limits(instance) == {"a_training": 0, "b_training": 0}
        hold(instance, tmp_path, {"b_training"})
        assert limits(instance) == {"a_training": 3, "b_training": 0}
        hold(instance, tmp_path, set())
        assert limits(instance) == {"a_training": 3}


def test_a_run_whose_budget_is_used_up_fails_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    config = tmp_path / "cost.yaml"
    config.write_text("budgets:\n  toy:\n    model: toy\n    cpu_hours: 1\n    action: refuse\n")
    monkeypatch.setattr("ml_platform.cost.config.cost_file", lambda: config)
    ran = []

    @dg.op(tags={"ml_platform/model": "toy"})
    def work() -> None:
        ran.append(1)

    job = dg.GraphDefinition("work", node_defs=[work]).to_job(executor_def=in_process_executor)

    def execute(instance: dg.DagsterInstance) -> dg.DagsterRun:
        run = instance.create_run_for_job(job)
        list(_events(job, run, instance))
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    with dg.instance_for_test() as instance:
        assert execute(instance).is_success
        log = UseLog(Settings(home=tmp_path).cost_dir)
        log.write([Use(time=datetime.now(UTC), meter="m", kind=RUN, model="toy", step="x", cpu_seconds=3600.0)])
        log.close()
        refused = execute(instance)
        assert refused.status == dg.DagsterRunStatus.FAILURE
        assert refused.tags[MAX_RETRIES_TAG] == "0"
        texts = [entry.user_message + str(entry.dagster_event) for entry in instance.all_logs(refused.run_id)]
        assert any("its budget is used up: toy (model toy, this month): 1.0" in text for text in texts)
        assert any("cost.yaml:2: budgets.toy" in text for text in texts)
    assert ran == [1]


def _events(job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance) -> list[object]:
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator

    try:
        return list(execute_run_iterator(InMemoryJob(job), run, instance))
    except Exception:  # noqa: BLE001 - the run's record says it
        return []


def test_the_shortest_interval_of_a_cron() -> None:
    assert _shortest_interval("*/5 8-9 * * *") == 300
    assert _shortest_interval("0 3 * * *") == 86_400
    assert _shortest_interval("59 0,1 * * *") == 3600


def test_a_schedule_of_the_projects_own_is_held_to_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "cost.yaml"
    config.write_text("policies:\n  schedule_interval: 1 hour\n")
    monkeypatch.setattr("ml_platform.cost.config.cost_file", lambda: config)

    @dg.asset
    def thing() -> None: ...

    job = dg.define_asset_job("often_job", [thing])

    def definitions(cron: str) -> dg.Definitions:
        schedule = dg.ScheduleDefinition(name="often", job=job, cron_schedule=cron)
        return dg.Definitions(assets=[thing], jobs=[job], schedules=[schedule])

    check_policies({}, definitions("0 * * * *"))
    with pytest.raises(SpecError, match="schedule 'often'"):
        check_policies({}, definitions("*/30 * * * *"))
