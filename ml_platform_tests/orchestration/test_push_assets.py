"""Pushed rows by Dagster: the sensor sees them come, the asset takes them in, publishing does not wait for them."""

from typing import Any

import dagster as dg
import polars as pl
import pytest

from ml_platform.features.online.push_log import stream
from ml_platform.features.online.pushed_rows import pushed_table
from ml_platform.features.views.view import FeatureView
from ml_platform.governance.access.changes import with_grants
from ml_platform.governance.access.policy import Grant
from ml_platform.governance.access.published import FILE
from ml_platform.governance.access.store import PolicyStore
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.feature_assets import feature_view_defs
from ml_platform.orchestration.push_assets import JOB, RETRY_AFTER, push_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.segment_log.segments import SegmentLog
from ml_platform.settings import Settings
from ml_platform_tests.features.online.test_pushed_rows import at, load_view, push, pushed, source

PUSHED, ONLINE, TABLE = (dg.AssetKey([folder, "shop_load"]) for folder in ("pushed", "online", "features"))


@pytest.fixture
def view(lake: Lake) -> FeatureView:
    source(lake, ("A", at(0), 1))
    return load_view()


@pytest.fixture
def definitions(settings: Settings, view: FeatureView) -> dg.Definitions:
    raw = dg.AssetSpec(["raw", "loads"])
    return dg.Definitions.merge(
        feature_view_defs(view), push_defs([view]), dg.Definitions([raw], resources=build_resources(settings))
    )


def evaluate(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Any:
    sensor = definitions.resolve_sensor_def(f"{JOB}_sensor")
    context = dg.build_sensor_context(instance, resources={"platform": definitions.resources["platform"]})  # type: ignore[index]
    return sensor.evaluate_tick(context)


def run(definitions: dg.Definitions, instance: dg.DagsterInstance, *keys: dg.AssetKey) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_job_def(JOB) if keys == (PUSHED,) else definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=list(keys), raise_on_error=False)


def test_the_sensor_asks_for_a_run_while_rows_wait_and_the_asset_takes_them_in(
    definitions: dg.Definitions, settings: Settings, lake: Lake, view: FeatureView
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert "nothing was pushed" in evaluate(definitions, instance).skip_message
        log = SegmentLog(settings.push_log_dir, "push log")  # a server that goes on
        log.append(stream(view.name, view.hash), [pushed(view, ("A", at(1), 10))])
        [request] = evaluate(definitions, instance).run_requests
        assert request.asset_selection == [PUSHED]
        [event] = run(definitions, instance, PUSHED).get_asset_materialization_events()
        facts = event.materialization.metadata
        assert (facts["new rows"].value, facts["dagster/row_count"].value) == (1, 1)
        assert "nothing was pushed" in evaluate(definitions, instance).skip_message
        log.append(stream(view.name, view.hash), [pushed(view, ("A", at(2), 11))])
        assert len(evaluate(definitions, instance).run_requests) == 1
        log.close()
    assert lake.read(pushed_table(view)).collect()["waiting"].to_list() == [10]


def test_a_run_that_failed_is_tried_again_later_not_at_once(
    definitions: dg.Definitions, settings: Settings, lake: Lake, view: FeatureView
) -> None:
    push(settings, view, ("A", at(1), 10))
    lake.append(pushed_table(view), pl.DataFrame({"waiting": ["not a number"]}))
    with dg.DagsterInstance.ephemeral() as instance:
        failed = run(definitions, instance, PUSHED)
        assert not failed.success
        told = evaluate(definitions, instance).skip_message
        record = instance.get_run_record_by_id(failed.run_id)
        assert record is not None
        assert failed.run_id in told
        assert f"the next try is after {record.create_timestamp + RETRY_AFTER:%Y-%m-%d %H:%M} UTC" in told


def test_the_view_is_published_without_waiting_for_pushed_rows_and_not_again_for_them(
    definitions: dg.Definitions, settings: Settings, view: FeatureView
) -> None:
    def wanted(instance: dg.DagsterInstance, cursor: Any) -> tuple[set[dg.AssetKey], Any]:
        tick = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
        return {key for key in (PUSHED, ONLINE, TABLE) if tick.get_num_requested(key)}, tick.cursor

    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(["raw", "loads"]))
        _, cursor = wanted(instance, None)
        assert run(definitions, instance, TABLE).success
        requested, cursor = wanted(instance, cursor)
        assert requested == {ONLINE}  # though nothing was ever pushed
        assert run(definitions, instance, ONLINE).success
        push(settings, view, ("A", at(1), 10))
        assert run(definitions, instance, PUSHED).success
        requested, cursor = wanted(instance, cursor)
        assert requested == set()
        [check] = run(definitions, instance, ONLINE).get_asset_check_evaluations()
        assert (check.passed, check.metadata["newest row of the table"].value) == (True, str(at(1)))


def test_publishing_a_view_under_a_policy_says_what_is_masked(
    definitions: dg.Definitions, settings: Settings, view: FeatureView
) -> None:
    grant = Grant(privilege="use_feature", object="platform", principal="user:bob", at=at(0))
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(definitions, instance, TABLE, ONLINE).success
        assert not (settings.access_dir / FILE).exists()
        PolicyStore(settings.access_dir).change(lambda document: with_grants(document, [grant]), "", "", by="x")
        assert run(definitions, instance, ONLINE).success
    assert (settings.access_dir / FILE).is_file()
