"""A replay from a terminal and in Dagster."""

import json
import re
from pathlib import Path

import dagster as dg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.orchestration.model_defs import build_model_defs
from ml_platform.orchestration.replay_check import replay_check_key
from ml_platform.orchestration.resources import build_resources
from ml_platform_tests.monitoring.replay.conftest import Served
from ml_platform_tests.promotion.reproduction.test_reproduce import project


@pytest.fixture(scope="module")
def root(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project `shop` that declares the model."""
    root = tmp_path_factory.mktemp("replay_cli")
    (root / "shop").mkdir()
    project(root / "shop" / "defs", served.shops)
    (root / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    return root


def run(monkeypatch: pytest.MonkeyPatch, root: Path, world: Served, *arguments: str) -> Result:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(world.shops.settings.home))
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(root))
    return CliRunner().invoke(app, ["replay", *arguments])


def test_a_worse_version_ends_with_its_own_exit_code_and_the_report_is_kept(
    own: Served, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = run(monkeypatch, root, own, "order_late", "--to", str(tmp_path / "replay.html"))
    assert result.exit_code == 3, result.output
    lines = result.output.splitlines()
    assert lines[0] == "order_late: version 2 beside version 1: worse"
    assert re.search(r"roc_auc 0\.\d+ against 0\.\d+ on \d+ labelled rows of 7 days: gain -", lines[1])
    assert any(re.fullmatch(r"  decisions that change +\d+\.\d+%", line) for line in lines)
    page = (tmp_path / "replay.html").read_text()
    assert "<strong>worse</strong>" in page
    assert "<script" not in page
    [kept] = (own.shops.store.folder / "replays" / "order_late").glob("2-replay-*.json")
    assert json.loads(kept.read_text())["verdict"] == "worse"
    run_id = own.shops.store.load_manifest(own.digests[2]).provenance.mlflow_run_id
    assert run_id is not None
    names = [item.path for item in own.shops.tracker.client.list_artifacts(run_id, "replays")]
    assert sorted(name.rpartition(".")[2] for name in names) == ["html", "json", "txt"]
    again = run(monkeypatch, root, own, "order_late", "--run", run_id)
    assert again.exit_code == 3, again.output
    assert again.output.startswith(f"order_late: the candidate of run {run_id[:12]} beside version 1: worse")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["order_late", "--version", "9"], "order_late: no version 9 is registered; there are [1, 2]"),
        (["order_late", "--version", "1"], "order_late: version 1 is the champion itself: name another version"),
        (["order_lat"], "unknown model 'order_lat'; did you mean 'order_late'?"),
        (["order_late", "--run", "0" * 32], "order_late: MLflow has no run 0000"),
        (["order_late", "--version", "1", "--run", "a"], "--version and --run both name the challenger"),
        (["order_late", "--to", "x.pdf"], "--to: wanted a file that ends in .html or .json"),
    ],
)
def test_what_is_not_there_is_told(
    served: Served, root: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    result = run(monkeypatch, root, served, *arguments)
    assert result.exit_code == 1
    assert said in result.output


def check(world: Served, **config: int) -> dg.AssetCheckEvaluation:
    shops = world.shops
    definitions = dg.Definitions.merge(
        build_model_defs(shops.spec, shops.folder, shops.views),
        dg.Definitions(resources=build_resources(shops.settings)),
    )
    job = definitions.resolve_job_def("order_late_replay")
    ops = {"order_late__registered_version_replay": {"config": config}}
    result = job.execute_in_process(run_config={"ops": ops} if config else None)
    [found] = result.get_asset_check_evaluations()
    assert found.asset_check_key == replay_check_key(shops.spec)
    return found


def test_the_job_warns_of_a_version_that_is_worse_and_passes_where_there_is_nothing_to_judge(own: Served) -> None:
    found = check(own)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.description is not None
    assert found.description.startswith("version 2: worse; roc_auc ")
    assert found.metadata["gain upper bound"].value < 0  # type: ignore[operator]
    assert check(own, version=1).description == "version 1 serves already"
    assert check(own, days=1).passed  # too few days of labels
    own.serve(2)
    assert check(own).description == "version 2 serves already"
