"""A failed check starts one retraining run, with its reason; a warning, a repeat or a rush starts none."""

from datetime import date, timedelta

import dagster as dg
import pytest

from ml_platform.orchestration.retraining import REASON_TAG, TRIGGER_TAG, latest_finished, retraining_sensor
from ml_platform.spec import InputField, ModelSpec, Retraining, Scoring

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


def evaluate(instance, wanted: ModelSpec):
    sensor = retraining_sensor(wanted, "toy_retrain")
    context = dg.build_sensor_context(instance=instance)
    return next(iter(sensor.evaluate_tick(context).run_requests), None), sensor.evaluate_tick(context).skip_message


def test_nothing_was_checked_yet(instance):
    request, message = evaluate(instance, spec())
    assert request is None
    assert "no_drift has not been evaluated yet" in message


def test_a_passing_check_starts_nothing(instance):
    report(instance, passed=True)
    request, message = evaluate(instance, spec())
    assert request is None
    assert "no_drift passed" in message


def test_a_failed_check_starts_one_run_that_says_why(instance):
    run = report(instance, passed=False)
    request, _ = evaluate(instance, spec())
    assert request.run_key == f"no_drift:{run.run_id}"
    assert request.tags[TRIGGER_TAG] == "toy/drift"
    assert request.tags[REASON_TAG] == "share of late flights 0.14 → 0.34"


def test_a_warning_starts_nothing_and_says_so(instance):
    report(instance, passed=False, severity=dg.AssetCheckSeverity.WARN)
    request, message = evaluate(instance, spec())
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
    assert latest_finished(instance, CHECK).run_id == run.run_id


def _planned():
    from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned

    return AssetCheckEvaluationPlanned(asset_key=KEY, check_name="no_drift")


def test_after_a_triggered_run_it_stays_quiet_for_the_cooldown(instance):
    report(instance, passed=False)

    @dg.job(name="toy_retrain", tags={TRIGGER_TAG: "toy/drift"})
    def retrain():
        pass

    retrain.execute_in_process(instance=instance)
    request, message = evaluate(instance, spec(cooldown=timedelta(hours=24)))
    assert request is None
    assert "quiet until" in message
    request, _ = evaluate(instance, spec(cooldown=timedelta(0)))
    assert request is not None


def test_a_model_that_wants_no_trigger_has_no_sensor():
    assert retraining_sensor(spec(on_drift=False, on_performance=False), "toy_retrain") is None
