"""A training set whose inputs are behind or incomplete stops the run, unless somebody accepts it."""

from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl

from ml_platform.features.training_sets.null_shares import last_accepted
from ml_platform.features.views.compute import compute_view
from ml_platform.orchestration.model_asset import key
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.retraining_history import definitions_digest
from ml_platform.orchestration.training_assets import training_assets
from ml_platform_tests.toy_world import START, Shops


def make(shops: Shops, **config: Any) -> tuple[bool, dict[str, dg.AssetCheckEvaluation], dict[str, Any]]:
    """Materialise the training set: whether what follows may run, its checks and metadata."""
    assets = training_assets(
        shops.spec, shops.folder, shops.views, definitions_digest(shops.spec, shops.folder, shops.views)
    )
    run_config = {"ops": {f"{shops.spec.name}__training_set": {"config": config}}}
    result = dg.materialize(
        assets,
        selection=dg.AssetSelection.assets(key(shops.spec, "training_set")),
        resources=build_resources(shops.settings),
        run_config=run_config,
        raise_on_error=False,
    )
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    return (
        result.success,
        checks,
        dict(result.asset_materializations_for_node(f"{shops.spec.name}__training_set")[0].metadata),
    )


def test_a_set_made_while_rows_are_backfilled_is_refused_until_the_view_is_computed(shops: Shops) -> None:
    success, checks, _ = make(shops)
    assert success
    assert checks["inputs_fresh"].passed
    assert checks["inputs_whole"].passed
    first = last_accepted(shops.lake, shops.spec.name)
    loads = shops.lake.read("raw/loads").collect()
    shops.lake.replace("raw/loads", loads.filter(pl.col("seen_at") < START + timedelta(days=20)))
    success, checks, _ = make(shops)
    assert not success
    assert checks["inputs_fresh"].severity == dg.AssetCheckSeverity.ERROR
    assert (
        "features/shop_load was computed from version 0 of raw/loads, now at 1: materialise features/shop_load"
        in str(checks["inputs_fresh"].description)
    )
    for view in shops.views.values():
        compute_view(shops.lake, view)
    success, checks, _ = make(shops)
    assert not success
    assert checks["inputs_fresh"].passed
    told = str(checks["inputs_whole"].description)
    assert "shop_load__load: " in told
    assert "of all " in told
    assert "of the newest " in told
    assert "accept_inputs_because" in told
    assert last_accepted(shops.lake, shops.spec.name) == first, "a refused set is no measure"
    assert not make(shops)[0]
    shops.lake.replace("raw/loads", loads)
    for view in shops.views.values():
        compute_view(shops.lake, view)
    assert make(shops)[0]


def test_what_is_accepted_is_told_on_the_asset_and_is_the_measure_from_then_on(shops: Shops) -> None:
    make(shops)
    loads = shops.lake.read("raw/loads").collect()
    shops.lake.replace("raw/loads", loads.filter(pl.col("seen_at") < START + timedelta(days=20)))
    for view in shops.views.values():
        compute_view(shops.lake, view)
    success, checks, metadata = make(shops, accept_inputs_because="the scales are gone for good")
    assert success
    assert not checks["inputs_whole"].passed
    assert checks["inputs_whole"].severity == dg.AssetCheckSeverity.WARN
    assert "accepted because the scales are gone for good" in str(checks["inputs_whole"].description)
    assert metadata["inputs accepted because"].value == "the scales are gone for good"
    assert make(shops)[0]


def test_a_first_set_is_warned_of_columns_without_any_value(shops: Shops) -> None:
    orders = shops.lake.read("raw/orders").collect()
    shops.lake.replace("raw/orders", orders.with_columns(weight=pl.lit(None, pl.Float64)))
    success, checks, _ = make(shops)
    assert success
    assert not checks["inputs_whole"].passed
    assert checks["inputs_whole"].severity == dg.AssetCheckSeverity.WARN
    assert "weight is null in every row" in str(checks["inputs_whole"].description)
