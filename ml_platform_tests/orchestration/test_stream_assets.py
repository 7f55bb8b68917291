"""Streamed tables in Dagster: what the asset and its check say of the stream, and when views are computed anew."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.features.streaming.feature_stream import FeatureStream
from ml_platform.features.streaming.status import FeatureStreamStatus, write_status
from ml_platform.features.views.freshness import check_freshness
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.feature_assets import feature_view_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.stream_assets import CHECK, JOB, stream_defs
from ml_platform.settings import Settings
from ml_platform_tests.features.streaming.till_views import Clock, sale, views

RAW, TABLE = dg.AssetKey(["raw", "sales"]), dg.AssetKey(["features", "till"])


@pytest.fixture
def till(tmp_path: Path) -> FeatureView:
    [view] = views(tmp_path / "views", names=["till"])
    return view


@pytest.fixture
def definitions(settings: Settings, till: FeatureView) -> dg.Definitions:
    resources = dg.Definitions(resources=build_resources(settings))
    return dg.Definitions.merge(feature_view_defs(till), stream_defs({"till": till}), resources)


def take(settings: Settings, lake: Lake, till: FeatureView, position: int) -> None:
    clock = Clock(position)
    with (
        open_online_store(settings.online_uri) as store,
        FeatureStream(lake, [till], store, settings.feature_streams_dir, clock=clock) as stream,
    ):
        stream.take([sale(position, position)])
        stream.land()


def tell(settings: Settings, **changes: Any) -> None:
    now = datetime.now(UTC)
    plain: dict[str, Any] = {"table": "raw/sales", "views": ["till"], "state": "running", "reason": None}
    plain |= {"pid": os.getpid(), "host": "here", "started_at": now, "updated_at": now, "source": "topic sales"}
    write_status(settings.feature_streams_dir, FeatureStreamStatus(**{**plain, **changes}))


def run(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def(JOB).execute_in_process(instance=instance, raise_on_error=False)


def evaluate(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Any:
    sensor = definitions.resolve_sensor_def(f"{JOB}_sensor")
    context = dg.build_sensor_context(instance, resources={"platform": definitions.resources["platform"]})  # type: ignore[index]
    return sensor.evaluate_tick(context)


def test_new_rows_have_the_views_computed_twice_in_the_lag_that_is_allowed(definitions, settings, lake, till):
    with dg.DagsterInstance.ephemeral() as instance:
        assert "no streamed table has new rows" in evaluate(definitions, instance).skip_message
        take(settings, lake, till, 1)
        [request] = evaluate(definitions, instance).run_requests
        assert request.asset_selection == [RAW, TABLE]
        tell(settings)
        assert run(definitions, instance).success
        assert lake.read("features/till").collect().height == 1
        take(settings, lake, till, 2)
        assert "a moment ago" in evaluate(definitions, instance).skip_message
        assert not check_freshness(lake, ["features/till"], {"till": till}).behind  # within stream.max_lag
        assert till.stream is not None
        hurried = till.model_copy(update={"stream": till.stream.model_copy(update={"max_lag": timedelta(0)})})
        assert check_freshness(lake, ["features/till"], {"till": hurried}).behind
        resources = dg.Definitions(resources=build_resources(settings))
        quick = dg.Definitions.merge(feature_view_defs(hurried), stream_defs({"till": hurried}), resources)
        assert evaluate(quick, instance).run_requests


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"updated_at": datetime(2024, 5, 1, tzinfo=UTC)}, "is gone, last seen 2024-05-01 00:00:00 UTC"),
        ({"state": "waiting", "reason": "no broker"}, "it is waiting: no broker"),
        ({"lag": 7, "last_message_at": datetime(2024, 5, 1, tzinfo=UTC)}, "7 messages wait, and the newest one taken"),
        ({"landing_error": "full", "landing_bytes": 12}, "12 bytes wait for raw/sales: full"),
    ],
)
def test_the_check_says_what_is_wrong_with_the_stream(definitions, settings, lake, till, changes, says):
    take(settings, lake, till, 1)
    tell(settings, **changes)
    with dg.DagsterInstance.ephemeral() as instance:
        evaluations = run(definitions, instance).get_asset_check_evaluations()
    [evaluation] = [one for one in evaluations if one.check_name == CHECK]
    assert evaluation.passed == (says is None)
    assert (says or "It runs") in (evaluation.description or "")


def test_a_table_without_an_event_says_what_to_start(definitions):
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(definitions, instance)
        assert not result.success
        [failure] = [event for event in result.all_events if event.is_step_failure and "sales" in str(event.step_key)]
        assert "ml-platform stream features till" in str(failure.event_specific_data)
