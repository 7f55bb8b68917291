"""Checks on a model's data, as Dagster runs them: a leak stops the chain."""

import dagster as dg
import polars as pl

from ml_platform.orchestration.model_defs import build_model_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform_tests.monitoring.skew.test_detect import HOUR, NOON, Live
from ml_platform_tests.toy_world import Shops, regression_spec


def definitions(shops) -> dg.Definitions:
    return dg.Definitions.merge(
        build_model_defs(shops.spec, shops.folder, shops.views),
        dg.Definitions(resources=build_resources(shops.settings)),
    )


def run(shops, *names: str) -> dg.ExecuteInProcessResult:
    job = definitions(shops).resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey([shops.spec.name, name]) for name in names]
    return job.execute_in_process(asset_selection=keys, raise_on_error=False)


def verdict(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (found,) = [check for check in result.get_asset_check_evaluations() if check.check_name == name]
    return found


def test_an_honest_training_set_passes(shops):
    found = verdict(run(shops, "training_set"), "no_leakage")
    assert found.passed, found.description
    assert {"rows looked at", "strongest features"} <= set(found.metadata)


def test_a_leak_is_named_and_nothing_is_trained_on_it(shops):
    orders = shops.lake.read("raw/orders").collect()
    shops.lake.replace("raw/orders", orders.with_columns(weight=pl.col("late").cast(pl.Float64)))
    result = run(shops, "training_set", "candidates")
    found = verdict(result, "no_leakage")
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.description is not None
    assert "'weight' is the label in another form (AUC 1.0000)" in found.description
    assert "leakage.allow" in found.description
    assert not result.success
    keys = [event.asset_key for event in result.get_asset_materialization_events()]
    assert [key.path[-1] for key in keys if key] == ["training_set"]


def test_an_absurd_label_is_named_and_stops_nothing(shops):
    orders = shops.lake.read("raw/orders").collect().sort("order_id")
    absurd = pl.when(pl.int_range(pl.len()) == 17).then(1e12).otherwise(pl.col("minutes"))
    shops.lake.replace("raw/orders", orders.with_columns(minutes=absurd))
    regression = Shops(shops.settings, shops.folder, regression_spec(), shops.views)
    result = run(regression, "training_set")
    assert result.success
    found = verdict(result, "no_label_outliers")
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert f"minutes 1e+12 in the row with order_id '{orders['order_id'][17]}'" in (found.description or "")


def test_skew_is_checked_by_a_job_of_its_own_with_counts_and_examples(shops, trained_shops):
    shops = shops.respecified(skew={"min_rows": 10})
    live = Live(shops, trained_shops[1].digest)
    live.publish(NOON)
    live.answer(NOON, NOON + 6 * HOUR, heavy=lambda value: not value)
    assert live.skew().verdict == "skew"
    result = definitions(shops).resolve_job_def(f"{shops.spec.name}_skew").execute_in_process()
    found = verdict(result, "no_skew")
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.description is not None
    assert "'heavy' differs in" in found.description
    examples = found.metadata["examples"]
    assert isinstance(examples, dg.TableMetadataValue)
    assert examples.records[0].data["cause"] == "different"
    assert [event.check_name for event in result.get_asset_check_evaluations()] == ["no_skew"]


def test_watching_every_hour_leaves_the_daily_check_out(shops):
    watch = definitions(shops).resolve_job_def(f"{shops.spec.name}_watch")
    checks = {check.name for check in watch.asset_layer.asset_graph.asset_check_keys}
    assert "no_drift" in checks
    assert "no_skew" not in checks
