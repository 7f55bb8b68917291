"""A feature that turns from number to category between two versions stops nothing: a real server and real assets.

An input (`weight`) and a derived feature (`weekday`) turn; the model is retrained by its own job, and back.
"""

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import polars as pl
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.inference.recorded_columns import of_features
from ml_platform.lake.query.sql import query
from ml_platform.monitoring.champion import released_digests
from ml_platform.orchestration.model_defs import build_model_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.promotion.promote import promote_version, rollback
from ml_platform.settings import Settings
from ml_platform.training.documents import Evaluation
from ml_platform_tests.serving.conftest import Server, serve  # noqa: F401 - a fixture
from ml_platform_tests.toy_world import REQUEST_FEATURES, START, Shops, build_shops, shop_spec

pytestmark = pytest.mark.slow

MODEL = "order_late"
WATCHED = {
    # whatever is not much worse takes the champion's place, and both versions' rows are in one window
    "promotion": {"min_gain": 0, "tolerance": 0.5, "min_slice_rows": 100, "max_latency_ms": 1000},
    "monitoring": {"window": "40 days", "min_rows": 50},
    "families": ["logistic_regression"],
}
INPUTS: list[dict[str, Any]] = [field.model_dump(mode="json") for field in shop_spec().inputs]
CATEGORIES = REQUEST_FEATURES.replace(
    'pl.col("ordered_at").dt.weekday().cast(pl.Int64)',
    'pl.when(pl.col("ordered_at").dt.weekday() > 5).then(pl.lit("weekend")).otherwise(pl.lit("working day"))',
)


NOT_A_NUMBER = "column 'weight' is declared as number, its values are String"


class Project:
    """The toy world's model as Dagster runs it, by one state of its files."""

    def __init__(self, shops: Shops, instance: dg.DagsterInstance) -> None:
        self.shops, self.instance = shops, instance
        self.definitions = dg.Definitions.merge(
            build_model_defs(shops.spec, shops.folder, shops.views),
            dg.Definitions(resources=build_resources(shops.settings), executor=dg.in_process_executor),
        )

    def retrain(self, as_of: datetime) -> Evaluation:
        job = self.definitions.resolve_job_def(f"{MODEL}_retrain")
        config = {"ops": {f"{MODEL}__training_set": {"config": {"as_of": as_of.isoformat()}}}}
        result = job.execute_in_process(instance=self.instance, run_config=config)
        assert result.success
        return result.asset_value(dg.AssetKey([MODEL, "evaluation"]))

    def score(self, day: int) -> None:
        partition = f"{START + timedelta(days=day):%Y-%m-%d}"
        tags = dict.fromkeys(("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"), partition)
        job = self.definitions.resolve_implicit_global_asset_job_def()
        selection = [dg.AssetKey([MODEL, "predictions"])]
        assert job.execute_in_process(instance=self.instance, asset_selection=selection, tags=tags).success

    def watch(self) -> dict[str, dg.AssetCheckEvaluation]:
        """Ingest the log, measure performance and drift; give the checks by name."""
        result = self.definitions.resolve_job_def(f"{MODEL}_watch").execute_in_process(instance=self.instance)
        assert result.success
        return {check.check_name: check for check in result.get_asset_check_evaluations()}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def ask(server: Server, shops: Shops, day: int, version: int) -> int:
    """Have a day's orders answered by a version, as soon as the server has it; gives how many."""
    first = START + timedelta(days=day)
    rows = query(shops.lake, (shops.folder / shops.spec.spine).read_text())
    rows = rows.filter(pl.col("ordered_at").is_between(first, first + timedelta(days=1), closed="left"))
    names = [field.name for field in shops.spec.inputs]
    asked = rows.select(names).with_columns(pl.col("ordered_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
    answers: list[httpx.Response] = []

    def is_loaded(client: httpx.Client) -> bool:
        answers.append(client.post(f"/predict/{MODEL}/versions/{version}", json={"rows": asked}))
        return answers[-1].status_code != 404

    server.wait_until(is_loaded)
    assert answers[-1].status_code == 200, answers[-1].text
    return len(asked)


def edited(shops: Shops, folder: Path, change: str) -> Shops:
    """The same world after an edit of the model's files that turns a number into a category."""
    shutil.copytree(shops.folder, folder)
    inputs = [dict(field) for field in INPUTS]
    if change == "derived feature":
        (folder / "request_features.py").write_text(CATEGORIES)
    else:
        weight = next(field for field in inputs if field["name"] == "weight")
        weight |= {"type": "string", "unit": None, "minimum": None}
        spine = (folder / shops.spec.spine).read_text()
        light = "CASE WHEN weight > 20 THEN 'heavy' WHEN weight IS NOT NULL THEN 'light' END AS weight"
        (folder / shops.spec.spine).write_text(spine.replace("weight", light))
        features = REQUEST_FEATURES.replace('pl.col("weight") > 20', 'pl.col("weight") == "heavy"')
        (folder / "request_features.py").write_text(features)
    return Shops(shops.settings, folder, shop_spec(**WATCHED, inputs=inputs), shops.views)


@pytest.mark.parametrize(("change", "feature"), [("derived feature", "weekday"), ("input", "weight")])
def test_a_number_becomes_a_category_and_all_goes_on(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    serve: Callable[..., Server],  # noqa: F811
    change: str,
    feature: str,
):
    settings = Settings(home=tmp_path / "home")
    numbers = build_shops(settings, tmp_path / "numbers", shop_spec(**WATCHED))
    view = numbers.views["shop_load"]
    newest = numbers.lake.read(view.table).collect().sort("event_time").unique("shop", keep="last", maintain_order=True)
    with open_online_store(settings.online_uri) as online:
        online.write(view.name, view.entity, newest, view_hash=view.hash)

    # Version 1 takes the feature for a number; it answers, scores and is watched.
    before = Project(numbers, instance)
    before.retrain(START + timedelta(days=65))
    server = serve(settings)
    asked = {1: ask(server, numbers, 66, 1)}
    before.score(67)
    judged(before.watch())

    # Version 2 takes it for a category. The gate compares both where version 1 can still be given its numbers.
    after = Project(edited(numbers, tmp_path / "categories", change), instance)
    evaluation = after.retrain(START + timedelta(days=85))
    store = after.shops.store
    if change == "derived feature":
        assert evaluation.champion is not None
        assert set(evaluation.champion) == set(evaluation.challenger)
    else:
        assert evaluation.champion is None
        assert NOT_A_NUMBER in evaluation.reasons[0]
    endpoint = store.endpoint(MODEL)
    assert endpoint is not None
    if endpoint.targets[0].version == 1:
        promote_version(settings, MODEL, 2, by="ann", reason="whatever the gate says")
    asked[2] = ask(server, after.shops, 86, 2)
    after.score(87)
    judged(after.watch())

    # Every answer is in the table once, and each version reads its own kind of values back.
    digests = released_digests(store, MODEL)
    log = after.shops.lake.read(f"inference_log/{MODEL}").collect()
    assert dict(log["model_version"].value_counts().iter_rows()) == asked
    for rows in (log, after.shops.lake.read(f"predictions/{MODEL}").collect()):
        for version, dtype in ((1, pl.Float64), (2, pl.String)):
            features = store.load_manifest(digests[version]).features
            own = of_features(rows.filter(pl.col("model_version") == version), features)
            assert own.schema[feature] == dtype
            assert 0 <= own[feature].null_count() < own.height / 2

    # Back to version 1: it answers, scores and is watched beside the rows of version 2.
    rollback(settings, MODEL, by="ann", reason="a try")
    asked[1] += ask(server, numbers, 88, 1)
    if change == "derived feature":
        after.score(89)  # it derives its number from the request, whatever the files say
    else:
        with pytest.raises(ValueError, match=NOT_A_NUMBER):
            after.score(89)
        before.score(89)
    told = judged(after.watch())
    assert (
        f"rows that version 2 scored are not scored again: it makes {'heavy, ' * (change == 'input')}{feature}" in told
    )
    log = after.shops.lake.read(f"inference_log/{MODEL}").collect()
    assert dict(log["model_version"].value_counts().iter_rows()) == asked


def judged(checks: dict[str, dg.AssetCheckEvaluation]) -> str:
    """Performance and drift came to a verdict over all features; gives what is said of the performance."""
    drift, performance = checks["no_drift"], checks["above_minimum"]
    assert drift.metadata["verdict"].value in {"drift", "no drift"}, drift.description
    assert drift.metadata["features not judged"].value == 0
    assert performance.metadata["verdict"].value in {"fine", "below"}, performance.description
    labelled = performance.metadata["labelled rows"]
    assert isinstance(labelled, dg.IntMetadataValue)
    assert (labelled.value or 0) > 0
    assert performance.description is not None
    return performance.description
