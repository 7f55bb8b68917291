"""A scoring that is killed anywhere, and a Ray worker that is: no row is lost, none is there twice."""

import os
import signal
import subprocess
import sys
import textwrap

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from ml_platform.compute import choose_executor
from ml_platform.inference import run_parts
from ml_platform.inference.batch import score_window
from ml_platform.scoring import sources
from ml_platform_tests.toy_world import START, shop_spec

KILLED = """
    import os, signal, sys
    from pathlib import Path
    from ml_platform.features.views.load import load_views
    from ml_platform.scoring import outputs, run, sources
    from ml_platform.settings import Settings

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    home, views, target, where = sys.argv[1:]
    sources.PART_ROWS = 1000
    if where == "in the middle":
        calls = []
        write = run.replace_file
        def note(path, content):
            if path.suffix == ".msgpack" and len(list(path.parent.glob("*.msgpack"))) == 2:
                die()
            write(path, content)
        run.replace_file = note
    elif where == "before the commit":
        outputs.TableOutput.commit = outputs.FileOutput.commit = die
    else:
        run.shutil.rmtree = die
    wanted = run.Wanted(model="order_late", source="raw/odd", target=target)
    run.score(Settings(home=Path(home)), wanted, lambda: load_views(Path(views)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in the middle", "before the commit", "after the commit"])
@pytest.mark.parametrize("kind", ["table", "file"])
def test_a_killed_scoring_goes_on_and_has_each_row_once(world, tmp_path, monkeypatch, where, kind):
    monkeypatch.setattr(sources, "PART_ROWS", 1000)
    odd = world.orders.with_columns(weight=pl.when(pl.int_range(pl.len()) % 100 == 7).then(-1.0).otherwise("weight"))
    for start in range(0, odd.height, 1000):
        world.shops.lake.append("raw/odd", odd.slice(start, 1000))
    target = "scores/odd" if kind == "table" else str(tmp_path / "odd.parquet")
    views = world.shops.folder / "views"
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(world.shops.settings.home), str(views), target, where]
    ended = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    [folder] = world.shops.settings.scoring_dir.iterdir()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("results/*.msgpack")}
    assert len(kept) == {"in the middle": 2, "before the commit": 6}.get(where, len(kept))
    lake = world.shops.lake
    assert lake.exists("scores/odd") == (kind == "table" and where == "after the commit")
    report = world.score("raw/odd", target)
    assert (report.read, report.scored, report.refused) == (6000, 5940, 60) or report.repeated
    scored = world.scored("scores/odd") if kind == "table" else pl.read_parquet(target)
    refused = (
        lake.read("quarantine/scores/odd").collect()
        if kind == "table"
        else pl.read_parquet(tmp_path / "odd.refused.parquet")
    )
    assert sorted([*scored["source_row"], *refused["source_row"]]) == list(range(6000))
    assert scored["scored_at"].n_unique() == 1, "it went on, and did not begin anew"
    assert world.score("raw/odd", target).repeated
    if kind == "table":
        files = lake.snapshot("scores/odd").file_uris()
        there = [str(path) for path in (world.shops.settings.home / "lake/scores/odd").rglob("*part-*")]
        assert sorted(files) == sorted(there), "no file is left over"


def running_parts() -> list[psutil.Process]:
    """Ray workers below this process that score a part right now."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] == ["ray::score_part"] or process.name().startswith("ray::score_part"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.slow
def test_a_killed_ray_worker_loses_and_doubles_no_row(world, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(sources, "PART_ROWS", 500)
    for start in range(0, 3000, 500):
        world.shops.lake.append("raw/some", world.orders.slice(start, 500))
    world.score("raw/some", "scores/local", explain=3)
    killed: list[int] = []
    has_died = run_parts._has_died
    died: list[Exception] = []

    def noted(error: Exception) -> bool:
        died.append(error)
        return has_died(error)

    def kill_one(done: int, rows: int) -> None:
        if 0 < done < rows and len(killed) < 2:
            for process in running_parts()[:1]:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    monkeypatch.setattr(run_parts, "_has_died", noted)
    from ml_platform.scoring.run import Wanted, score

    wanted = Wanted(model="order_late", source="raw/some", target="scores/ray", explain=3, executor="ray")
    report = score(world.shops.settings, wanted, lambda: world.shops.views, on_progress=kill_one)
    assert killed
    assert died, "a worker was killed while it scored a part"
    assert (report.read, report.scored) == (3000, 3000)
    mine, other = world.scored("scores/ray"), world.scored("scores/local")
    assert mine["source_row"].to_list() == list(range(3000))
    assert_frame_equal(mine.drop("run", "scored_at"), other.drop("run", "scored_at"), abs_tol=1e-12)
    history = world.shops.lake.history("scores/ray")
    assert history.height == 1, "one commit"


@pytest.mark.slow
def test_the_asset_scores_the_same_on_ray(world):
    pytest.importorskip("ray")
    shops, end = world.shops, START.replace(month=3)
    score_window(shops.lake, shops.spec, shops.folder, shops.views, shops.store, START, end)
    local = shops.lake.read("predictions/order_late").drop("scored_at").sort("id").collect()
    spec = shop_spec(scoring={"start": "2024-01-01", "executor": "ray"})
    score_window(
        shops.lake, spec, shops.folder, shops.views, shops.store, START, end,
        executor=choose_executor(spec.scoring.executor, cells=0), scratch=shops.settings.scoring_dir,
    )  # fmt: skip
    assert_frame_equal(
        shops.lake.read("predictions/order_late").drop("scored_at").sort("id").collect(), local, abs_tol=1e-12
    )
    assert not list(shops.settings.scoring_dir.iterdir())
