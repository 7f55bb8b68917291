"""The ways into recalibration: Dagster's job, other tasks, and a process that is killed at each step."""

import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.monitoring.recalibration.recalibrate import recalibrate
from ml_platform.orchestration.model_defs import build_model_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.promotion.promote import sync_registry
from ml_platform.promotion.reconcile import versions_of
from ml_platform.registry.adapted_conformal import load_adapted
from ml_platform.registry.ledger import read_releases
from ml_platform.registry.manifest import champion_target
from ml_platform.registry.stage_names import CHAMPION
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform_tests.monitoring.recalibration.conftest import release, score_days
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.toy_world import START, Shops, multiclass_spec, regression_spec

MODULE = "ml_platform.monitoring.recalibration"
KILLED_AFTER = {
    "the logged model": f"{MODULE}.light_release:log_model",
    "the version in MLflow": "mlflow.tracking:MlflowClient.create_model_version",
    "the intervals": f"{MODULE}.recalibrate:store_adapted",
    "the card": f"{MODULE}.recalibrate:write_recalibrated_card",
    "what serves": "ml_platform.registry.releases:ReleaseStore.publish",
    "the ledger": "ml_platform.promotion.promote:record_release",
}
KILLING = """
import importlib, os, signal, sys
from pathlib import Path
from ml_platform.monitoring.recalibration.recalibrate import recalibrate
from ml_platform.settings import Settings
from ml_platform_tests.toy_world import Shops, shop_spec

home, folder, point = sys.argv[1:]
module, _, path = point.partition(":")
*owners, name = path.split(".")
owner = importlib.import_module(module)
for one in owners:
    owner = getattr(owner, one)
inner = getattr(owner, name)

def killed(*arguments, **options):
    inner(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, killed)
shops = Shops(Settings(home=Path(home)), Path(folder), shop_spec(calibration="platt"))
recalibrate(shops.settings, shops.spec, shops.folder, by="ann")
"""


def test_dagsters_job_recalibrates_and_shows_how_it_went(slow_shops: Shops) -> None:
    rules = slow_shops.spec.recalibration.model_copy(update={"schedule": "30 6 * * *"})
    spec = slow_shops.spec.model_copy(update={"recalibration": rules})
    built = dg.Definitions.merge(
        build_model_defs(spec, slow_shops.folder, slow_shops.views),
        dg.Definitions(resources=build_resources(slow_shops.settings)),
    )
    assert "order_late_recalibrate_schedule" in {one.name for one in built.schedules or ()}
    result = built.resolve_job_def("order_late_recalibrate").execute_in_process()
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("up_to_date", True)
    (made,) = result.get_asset_materialization_events()
    metadata = made.materialization.metadata
    assert metadata["new version"].value == 2
    assert {"coverage of 0.9", "width of 0.9", "log-loss anew"} <= set(metadata)
    before, after = (metadata[f"calibration error {name}"].value for name in ("as served", "anew"))
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after < before


@pytest.mark.slow
@pytest.mark.parametrize("point", KILLED_AFTER)
def test_killed_at_any_step_one_version_serves_and_the_next_run_ends_it(slow_shops: Shops, point: str) -> None:
    command = [sys.executable, "-c", KILLING, str(slow_shops.settings.home), str(slow_shops.folder)]
    done = subprocess.run(
        [*command, KILLED_AFTER[point]], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    document = slow_shops.store.endpoint("order_late")
    assert document is not None
    released = point in ("what serves", "the ledger")
    assert champion_target(document).version == (2 if released else 1)
    report = recalibrate(slow_shops.settings, slow_shops.spec, slow_shops.folder, by="ann")
    assert report.released is not released  # then there was nothing left to do
    assert sorted(int(one.version) for one in versions_of(slow_shops.tracker, "order_late")) == [1, 2]
    sync_registry(slow_shops.settings, "order_late")
    assert int(slow_shops.tracker.client.get_model_version_by_alias("order_late", CHAMPION).version) == 2
    assert read_releases(slow_shops.lake, "order_late")["to_version"].to_list().count(2) == 1
    assert slow_shops.tracker.close_dead_runs("order_late") == []


@pytest.mark.slow
@pytest.mark.parametrize("spec", [regression_spec(families=("ridge",)), multiclass_spec(calibration="platt")])
def test_other_tasks_follow_their_labels(released_shops: Shops, spec: ModelSpec, tmp_path: Path) -> None:
    home = shutil.copytree(released_shops.settings.home, tmp_path / "other")
    promotion = spec.promotion.model_copy(update={"min_slice_rows": 20})  # few of a shop's labels come in a week
    changes = {"scoring": released_shops.spec.scoring, "promotion": promotion}
    shops = Shops(Settings(home=home), released_shops.folder, spec.model_copy(update=changes), released_shops.views)
    release(shops, shops.train(START + timedelta(days=50)))
    score_days(shops, 50, 75)
    report = recalibrate(shops.settings, shops.spec, shops.folder, by="ann")
    document = shops.store.endpoint(spec.name)
    assert document is not None
    champion = champion_target(document)
    adapted = load_adapted(shops.store, champion.digest)
    assert adapted is not None
    assert adapted.days == report.counted_days > 10
    assert report.coverage == pytest.approx(0.9, abs=0.08)
    if spec.task == "regression":
        assert (report.new_version, champion.version) == (None, 1)
        assert adapted.conformal.lower[-1] < adapted.conformal.lower[0] < adapted.conformal.upper[0]
    else:
        assert report.released, report.reasons
        manifest = shops.store.load_manifest(champion.digest)
        assert manifest.calibration is not None
        assert len(manifest.calibration.shifts) == len(manifest.classes) == 3
        assert report.calibration_error is not None
        assert report.calibration_error[1] < report.calibration_error[0]
