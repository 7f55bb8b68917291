"""A failed check starts one retraining run, with its reason; a warning, a repeat or a rush starts none."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from pydantic import BaseModel

from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.retraining import REASON_TAG, TRIGGER_TAG, latest_finished, retraining_sensor
from ml_platform.orchestration.retraining_history import (
    CHECK_TAG,
    quiet_until,
    retrainings,
    unchanged_since_last,
)
from ml_platform.settings import Settings
from ml_platform.spec.inputs import InputField
from ml_platform.spec.model import ModelSpec, Scoring
from ml_platform.spec.monitoring import Retraining

KEY = dg.AssetKey(["toy", "drift_report"])
CHECK = dg.AssetCheckKey(KEY, "no_drift")


def spec(**retraining) -> ModelSpec:
    return ModelSpec(
        name="toy",
        description="A model for tests.",
        owner="tests@example.com",
        task="binary",
        target="label",
        spine="spine.sql",
        id="id",
        timestamp="at",
        label_available_at="known_at",
        inputs=(InputField(name="x", type="number"),),
        families=("lightgbm",),
        scoring=Scoring(start=date(2024, 1, 1)),
        retraining=Retraining(**retraining),
    )


def report(
    instance: dg.DagsterInstance, *, passed: bool, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
):
    @dg.asset(key=KEY, check_specs=[dg.AssetCheckSpec("no_drift", asset=KEY)])
    def drift_report():
        result = dg.AssetCheckResult(
            check_name="no_drift", passed=passed, severity=severity, description="share of late flights 0.14 → 0.34"
        )
        return dg.MaterializeResult(check_results=[result])

    return dg.materialize([drift_report], instance=instance)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def evaluate(instance, settings: Settings):
    """Evaluate the sensor of a spec; gives its run request and why it skipped."""

    def _evaluate(wanted: ModelSpec) -> tuple[dg.RunRequest | None, str | None]:
        sensor = retraining_sensor(wanted, "toy_retrain", "definitions")
        context = dg.build_sensor_context(instance=instance, resources=build_resources(settings))
        assert sensor is not None
        done = sensor.evaluate_tick(context)
        return next(iter(done.run_requests or ()), None), done.skip_message

    return _evaluate


class Decision(BaseModel):
    promoted: bool


@pytest.fixture
def retrain(instance, settings: Settings):
    """Run a job of the model's name that promotes, refuses or fails."""

    def _retrain(outcome: str = "promoted", tags: dict[str, str] | None = None) -> str:
        @dg.asset(key=["toy", "release"], io_manager_key="json_io_manager")
        def release() -> Decision:
            if outcome == "failed":
                raise ValueError("no rows")
            return Decision(promoted=outcome == "promoted")

        definitions = dg.Definitions(
            assets=[release],
            jobs=[dg.define_asset_job("toy_retrain", selection=[release])],
            resources=build_resources(settings),
        )
        job = definitions.resolve_job_def("toy_retrain")
        return job.execute_in_process(instance=instance, tags=tags or {}, raise_on_error=False).run_id

    return _retrain


def test_nothing_was_checked_yet(instance, evaluate):
    request, message = evaluate(spec())
    assert request is None
    assert "no_drift has not been evaluated yet" in message


def test_a_passing_check_starts_nothing(instance, evaluate):
    report(instance, passed=True)
    request, message = evaluate(spec())
    assert request is None
    assert "no_drift passed" in message


def test_a_failed_check_starts_one_run_that_says_why(instance, evaluate):
    run = report(instance, passed=False)
    request, _ = evaluate(spec())
    assert request.run_key == f"no_drift:{run.run_id}"
    assert request.tags[TRIGGER_TAG] == "toy/drift"
    assert request.tags[REASON_TAG] == "share of late flights 0.14 → 0.34"


def test_a_warning_starts_nothing_and_says_so(instance, evaluate):
    report(instance, passed=False, severity=dg.AssetCheckSeverity.WARN)
    request, message = evaluate(spec())
    assert request is None
    assert "only warned: share of late flights" in message


def test_a_check_that_is_planned_does_not_hide_the_failure_before_it(instance):
    run = report(instance, passed=False)
    instance.event_log_storage.store_event(
        dg.EventLogEntry(
            error_info=None,
            user_message="",
            level="debug",
            run_id="later",
            timestamp=1e10,
            dagster_event=dg.DagsterEvent(
                event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
                job_name="toy",
                event_specific_data=_planned(),
            ),
        )
    )
    finished = latest_finished(instance, CHECK)
    assert finished is not None
    assert finished.run_id == run.run_id


def _planned():
    from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned

    return AssetCheckEvaluationPlanned(asset_key=KEY, check_name="no_drift")


@pytest.mark.parametrize("trigger", ["toy/drift", "toy/schedule", None])
def test_after_any_run_it_stays_quiet_for_the_cooldown(instance, evaluate, retrain, trigger):
    report(instance, passed=False)
    retrain(tags={TRIGGER_TAG: trigger} if trigger else None)
    request, message = evaluate(spec(cooldown=timedelta(hours=24)))
    assert request is None
    assert "quiet until" in message
    request, _ = evaluate(spec(cooldown=timedelta(0)))
    assert request is not None


@pytest.mark.parametrize(
    ("outcomes", "factor"),
    [
        (["promoted"], 1),
        (["refused"], 2),
        (["promoted", "failed"], 2),
        (["refused", "failed"], 4),
        (["refused"] * 5, 8),
        (["refused", "refused", "promoted"], 1),
    ],
)
def test_quiet_time_doubles_with_each_run_that_released_nothing(instance, settings, retrain, outcomes, factor):
    for outcome in outcomes:
        retrain(outcome)
    platform = build_resources(settings)["platform"]
    history = list(retrainings(instance, platform, spec()))
    quiet = quiet_until(history, timedelta(hours=1))
    assert quiet is not None
    until, why = quiet
    assert until - history[0].created == factor * timedelta(hours=1)
    assert ("in a row released nothing" in why) == (factor > 1)


def test_a_cooldown_of_any_length_is_quiet_for_good(instance, settings, retrain):
    retrain("refused")
    history = list(retrainings(instance, build_resources(settings)["platform"], spec()))
    quiet = quiet_until(history, timedelta.max)
    assert quiet is not None
    assert quiet[0] == datetime.max.replace(tzinfo=UTC)


def test_a_failure_is_answered_once_however_the_gate_decided(instance, evaluate, retrain):
    run = report(instance, passed=False)
    answer = retrain("refused", tags={CHECK_TAG: run.run_id})
    request, message = evaluate(spec(cooldown=timedelta(0)))
    assert request is None
    assert f"run {answer} has answered this failure" in message
    report(instance, passed=False)
    assert evaluate(spec(cooldown=timedelta(0)))[0] is not None


def test_a_failure_whose_run_failed_is_tried_again_under_a_key_of_its_own(instance, evaluate, retrain):
    """Dagster starts nothing twice for one key, so the key of the killed run is used up."""
    run = report(instance, passed=False)
    first, _ = evaluate(spec(cooldown=timedelta(0)))
    retrain("failed", tags=first.tags)
    second, _ = evaluate(spec(cooldown=timedelta(0)))
    assert (first.run_key, second.run_key) == (f"no_drift:{run.run_id}", f"no_drift:{run.run_id}:1")


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_while_a_run_trains_the_model_none_is_asked_for(instance, evaluate, status):
    report(instance, passed=False)
    run = dg.DagsterRun(
        job_name="__ASSET_JOB", status=status, asset_selection=frozenset({dg.AssetKey(["toy", "candidates"])})
    )
    instance.add_run(run)
    request, message = evaluate(spec(cooldown=timedelta(0)))
    assert request is None
    assert f"run {run.run_id} is at it" in message


def test_a_killed_run_that_dagster_will_retry_is_waited_for(instance, evaluate, retrain):
    report(instance, passed=False)
    killed = retrain("failed")
    instance.add_run_tags(killed, {"dagster/will_retry": "true"})
    request, message = evaluate(spec(cooldown=timedelta(0)))
    assert request is None
    assert f"run {killed} failed and is retried" in message


class Rows(BaseModel):
    tables: dict[str, int]


class TrainedAsOf(dg.Config):
    as_of: str | None = None


@pytest.fixture
def train(instance, settings: Settings, lake: Lake):
    """Run a chain of a training set and a release over the table `raw/x`."""

    def _train(as_of: str | None = None) -> str:
        @dg.asset(key=["toy", "training_set"], io_manager_key="json_io_manager", code_version="definitions")
        def training_set(config: TrainedAsOf) -> Rows:
            return Rows(tables=lake.versions(["raw/x"]))

        @dg.asset(
            key=["toy", "release"], ins={"rows": dg.AssetIn(["toy", "training_set"])}, io_manager_key="json_io_manager"
        )
        def release(rows: Rows) -> Decision:
            return Decision(promoted=True)

        config = {"ops": {"toy__training_set": {"config": {"as_of": as_of}}}} if as_of else None
        return dg.materialize(
            [training_set, release], instance=instance, resources=build_resources(settings), run_config=config
        ).run_id

    return _train


def test_unchanged_data_is_not_trained_again(instance, settings, lake, evaluate, train):
    lake.append("raw/x", pl.DataFrame({"x": [1]}))
    report(instance, passed=False)
    run = train()
    request, message = evaluate(spec(cooldown=timedelta(0)))
    assert request is None
    assert f"nothing has changed since run {run} trained it" in message
    assert "the same versions of raw/x" in message
    lake.append("raw/x", pl.DataFrame({"x": [2]}))
    assert evaluate(spec(cooldown=timedelta(0)))[0] is not None


def test_changed_definitions_and_a_training_as_of_the_past_are_trained_again(instance, settings, lake, train):
    lake.append("raw/x", pl.DataFrame({"x": [1]}))
    platform = build_resources(settings)["platform"]
    train()
    assert unchanged_since_last(instance, platform, spec(), "definitions")
    assert unchanged_since_last(instance, platform, spec(), "other definitions") is None
    train("2024-01-01T00:00:00+00:00")
    assert unchanged_since_last(instance, platform, spec(), "definitions") is None


def test_a_model_that_wants_no_trigger_has_no_sensor():
    assert retraining_sensor(spec(on_drift=False, on_performance=False), "toy_retrain", "") is None
