"""What workers read is what one process would: the same rows, matrix, labels, weights, categories, bounds."""

import numpy as np
import polars as pl
import pytest

from ml_platform.inference.matrix import FeatureEncoder, encode_labels, label_classes
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.cuts import RowRange
from ml_platform.training.data.split import TrainingRows, split_by_time
from ml_platform.training.data.stored_rows import rows_to_check
from ml_platform.training.distributed.fit import plan_fit
from ml_platform.training.distributed.shard import read_shard, read_stopping_rows
from ml_platform.training.documents import TrainedModel
from ml_platform.training.families.boosting import MAX_ROUNDS
from ml_platform.training.families.registry import get_family
from ml_platform.training.objective import Objective, weighted_rows
from ml_platform_tests.toy_world import Shops
from ml_platform_tests.training.distributed.worlds import SPREAD, stored_rows

LABELLED = pl.col("late")


def test_bounds_are_those_of_the_split_that_holds_all_rows(trained_shops: tuple[Shops, TrainedModel]) -> None:
    world, trained = trained_shops
    stored, cuts = stored_rows(
        world, trained, split={"holdout": "9 days", "validation": "5 days", "history": "12 days"}
    )
    parts = split_by_time(stored.scan().collect(), stored.spec)
    assert cuts.bounds == parts.bounds
    for rows, part in ((cuts.train, parts.train), (cuts.validation, parts.validation), (cuts.holdout, parts.holdout)):
        assert stored.read(rows).equals(part)


def test_only_the_newest_training_rows_are_held(trained_shops: tuple[Shops, TrainedModel]) -> None:
    world, trained = trained_shops
    stored, cuts = stored_rows(world, trained, tuning={"sample_rows": 300})
    rows = TrainingRows.read(world.lake, stored.spec, trained.training_set)
    whole = split_by_time(stored.scan().collect(), stored.spec)
    assert rows.stored is not None
    assert rows.parts.train.equals(whole.train.tail(300))
    assert rows.parts.bounds == whole.bounds
    assert rows.parts.holdout.equals(whole.holdout)
    assert rows.cuts == cuts


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_shards_together_are_the_matrix_of_one_process(
    task: str, trained_shops: tuple[Shops, TrainedModel], shops: Shops
) -> None:
    _, trained = trained_shops
    target = {"binary": "late", "multiclass": "channel", "regression": "weight"}[task]
    ref = trained.training_set
    table = shops.lake.read(ref.table, version=ref.version).filter(pl.col(target).is_not_null()).collect()
    table = table.with_columns(count=pl.int_range(pl.len()) % 3)  # a weight, of which a third is 0
    version = shops.lake.replace("training_sets/other", table)
    ref = ref.model_copy(update={"table": "training_sets/other", "version": version, "rows": table.height})
    changes = {"task": task, "target": target, "weight": "count"}
    if task != "regression":
        changes["class_weights"] = "balanced"
    stored, cuts = stored_rows(shops, trained.model_copy(update={"training_set": ref}), **changes)
    spec: ModelSpec = stored.spec
    parts = split_by_time(table, spec)
    before = weighted_rows(pl.concat([parts.train, parts.validation]), spec)
    classes = label_classes(before[target]) if task == "multiclass" else ()
    y = encode_labels(before[target], spec, classes)
    encoder = FeatureEncoder.fit(before, ref.features, None if task == "multiclass" else y)
    objective = Objective.of(spec, encoder.features, before, y, classes=classes)
    weights = objective.combined(y, objective.weights)
    assert weights is not None

    plan = plan_fit(stored, [cuts.train, cuts.validation], "lightgbm", {"n_estimators": 5}, seeks_rounds=True)[0]
    assert plan.features == encoder.features
    assert plan.classes == classes
    assert plan.class_weights == pytest.approx(objective.class_weights)
    booster = get_family("lightgbm").shard_booster()
    shards = [read_shard(plan, own, booster) for own in plan.shards]
    wanted = np.column_stack([encoder.transform(before), y, weights / weights.mean()])
    found = np.vstack([np.column_stack([shard.X, shard.y, np.array(shard.weights)]) for shard in shards])
    assert _sorted(found) == pytest.approx(_sorted(wanted), nan_ok=True)
    assert sum(shard.first for shard in shards) == weighted_rows(parts.train, spec).height
    assert "n_estimators" not in plan.params  # they are sought, MAX_ROUNDS at most
    assert MAX_ROUNDS > 5
    stopping = read_stopping_rows(plan, booster)
    assert stopping is not None
    assert len(stopping.y) == weighted_rows(parts.validation, spec).height
    assert stopping.weights.mean() == pytest.approx(1)  # type: ignore[union-attr]


def test_xgboost_reads_its_shards_in_the_floats_that_it_works_in(trained_shops: tuple[Shops, TrainedModel]) -> None:
    stored, cuts = stored_rows(*trained_shops)
    plan, found = plan_fit(stored, [cuts.train], "xgboost", {"n_estimators": 5}, seeks_rounds=False)
    booster = get_family("xgboost").shard_booster()
    shard = read_shard(plan, plan.shards[0], booster)
    assert shard.X.dtype == np.float32
    assert shard.weights is None
    assert plan.stop_on is None
    assert found.window == cuts.bounds.train


def test_too_few_rows_for_the_workers_are_refused(trained_shops: tuple[Shops, TrainedModel]) -> None:
    world, trained = trained_shops
    many = {**SPREAD["training"], "workers": 100}
    spec = world.respecified(**{**SPREAD, "training": many}).spec
    stored, _ = stored_rows(world, trained)
    stored = type(stored)(stored.lake, spec, stored.ref)
    hour = split_by_time(stored.scan().collect(), spec).bounds.train.last
    rows = RowRange(after=int(hour.timestamp() * 1e6) - 3_600_000_000, until=int(hour.timestamp() * 1e6))
    with pytest.raises(ValueError, match=r"too few for 100 workers .* set a lower `training.workers`"):
        plan_fit(stored, [rows], "lightgbm", {"n_estimators": 5}, seeks_rounds=False)


def test_rows_of_one_class_are_refused(trained_shops: tuple[Shops, TrainedModel], shops: Shops) -> None:
    _, trained = trained_shops
    ref = trained.training_set
    table = shops.lake.read(ref.table, version=ref.version).filter(LABELLED).collect()
    version = shops.lake.replace(ref.table, table)
    stored, cuts = stored_rows(
        shops, trained.model_copy(update={"training_set": ref.model_copy(update={"version": version})})
    )
    with pytest.raises(ValueError, match=r"all .* training rows have the same label"):
        plan_fit(stored, [cuts.train], "lightgbm", {"n_estimators": 5}, seeks_rounds=False)


def _sorted(rows: np.ndarray) -> np.ndarray:
    keys = np.nan_to_num(rows, nan=-1e9)
    return rows[np.lexsort(keys.T[::-1])]


def test_leaks_are_looked_for_among_the_newest_rows_and_some_by_chance(
    trained_shops: tuple[Shops, TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, trained = trained_shops
    stored, _ = stored_rows(world, trained)
    ref = trained.training_set
    everything = stored.scan().sort("ordered_at", "order_id").collect()
    rows, held = rows_to_check(world.lake, stored.spec, ref)
    assert rows.select(pl.len()).collect().item() == held.height == ref.rows
    monkeypatch.setattr("ml_platform.training.data.stored_rows.CHECKED_ROWS", 1000)
    rows, held = rows_to_check(world.lake, stored.spec, ref)
    assert rows.select(pl.len()).collect().item() == ref.rows
    assert held.tail(500).equals(everything.tail(500))
    assert 350 < held.height - 500 < 650
    assert held["order_id"].is_unique().all()
    assert held["ordered_at"].is_sorted()
