"""The job `automl` runs the engine of the command, and shows the leaderboard on an asset."""

from pathlib import Path

import dagster as dg
import pytest

from ml_platform.automl.adopt import adopt_trial
from ml_platform.automl.notebooks import execute_notebook, notebook_metric
from ml_platform.automl.store import latest_run
from ml_platform.orchestration.automl_job import automl_job
from ml_platform.orchestration.resources import Platform
from ml_platform.project import current_project
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform_tests.new_model.rows import readings


@pytest.mark.slow
def test_the_job_leaves_a_leaderboard_and_its_notebooks_say_the_same(settings: Settings, tmp_path: Path) -> None:
    readings(24 * 60).write_parquet(tmp_path / "readings.parquet")
    config = {
        "data": str(tmp_path / "readings.parquet"),
        "target": "power",
        "families": ["ridge", "xgboost"],
        "minutes": 0.1,
        "top": 2,
    }
    done = automl_job.execute_in_process(
        run_config={"ops": {"try_all_families": {"config": config}}},
        resources={"platform": Platform(home=str(settings.home))},
    )
    assert done.success
    [made] = [event for event in done.all_events if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION]
    assert made.asset_key == dg.AssetKey(["automl", "readings"])
    folder, board = latest_run(settings.home, "readings")
    assert board.plan.split.kind == "time"
    assert {member.family for entry in board.entries for member in entry.members} == {"ridge", "xgboost"}
    assert board.entry("best").size_bytes
    run = Tracker(settings).client.get_run(board.run_id)
    assert run.data.metrics["holdout"] == board.best.holdout
    for entry in board.entries[:2]:
        execute_notebook(folder / entry.notebook)
        assert notebook_metric(folder / entry.notebook) == entry.holdout
    with pytest.raises(LookupError, match="no trial 'none'"):
        adopt_trial(current_project(), settings, board, "none")
