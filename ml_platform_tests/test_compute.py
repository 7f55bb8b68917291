import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from ml_platform.compute import RAY_CELLS, choose_executor, executor_session, map_tasks, task_pool
from ml_platform.training.families.boosting import threads_for
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.process_tree import the_descendant


def scaled(item: int, factor: int) -> tuple[int, int]:
    return item * factor, os.getpid()


LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def addresses(pid: int | None = None) -> set[str]:
    """Addresses that a process (this one by default) and those it started listen on."""
    own, found = psutil.Process(pid), set()
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # Ray's helpers come and go
            found |= {one.laddr.ip for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    return found


def test_local_runs_in_this_process_in_order() -> None:
    with executor_session("local"):
        assert map_tasks(scaled, [3, 1, 2], shared=10) == [(30, os.getpid()), (10, os.getpid()), (20, os.getpid())]
    assert map_tasks(scaled, [], shared=1) == []


def test_error_of_a_task_is_the_callers() -> None:
    with pytest.raises(TypeError):
        map_tasks(scaled, [None], shared=None)  # type: ignore[misc]


def divided(item: int, by: int) -> float:
    if item < 0:
        os._exit(1)
    return item / by


def threads(cells: int, _: None) -> int:
    return threads_for(np.empty(cells))


def test_a_pool_gives_results_and_errors_one_by_one() -> None:
    with task_pool(divided, shared=0, executor="local") as pool:
        assert pool.capacity == 1
        pool.submit("a", 4)
        key, error = pool.wait()
    assert key == "a"
    assert isinstance(error, ZeroDivisionError)
    with task_pool(divided, shared=2, executor="local") as pool:
        pool.submit("b", 4)
        assert pool.wait() == ("b", 2.0)


def test_ray_is_chosen_for_a_cluster_or_long_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_executor("auto", cells=RAY_CELLS - 1) == "local"
    assert choose_executor("auto", cells=RAY_CELLS) == "ray"
    assert choose_executor("local", cells=RAY_CELLS) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert choose_executor("auto", cells=1) == "ray"
    monkeypatch.setitem(sys.modules, "ray", None)  # it is not installed
    assert choose_executor("auto", cells=1) == "local"


@pytest.mark.slow
def test_a_pool_on_ray_outlives_its_workers_and_each_task_has_one_core() -> None:
    with executor_session("ray"):
        with task_pool(divided, shared=2, executor="ray") as pool:
            assert pool.capacity == os.cpu_count()
            for item in (4, -1):
                pool.submit(item, item)
            outcomes = dict(pool.wait() for _ in range(2))
            assert outcomes[4] == 2.0
            assert "died" in str(outcomes[-1])
        with task_pool(divided, shared=0, executor="ray") as pool:
            pool.submit("a", 4)
            assert isinstance(pool.wait()[1], ZeroDivisionError)
        with task_pool(threads, shared=None, executor="ray") as pool:
            pool.submit("a", 1_000_000)
            assert pool.wait() == ("a", 1)


@pytest.mark.slow
def test_ray_gives_the_same_results_and_is_gone_afterwards() -> None:
    import ray

    with executor_session("ray"):
        found = map_tasks(scaled, range(20), shared=3, executor="ray")
        assert [value for value, _ in found] == [3 * item for item in range(20)]
        assert os.getpid() not in {process for _, process in found}
        assert ray.is_initialized()  # several calls share one Ray
        assert addresses() <= LOOPBACK
        raylet = the_descendant(os.getpid(), "raylet/raylet")
        assert raylet.environ()["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not ray.is_initialized()


HELD_BACK = """
import pathlib, sys, time
if any(one.endswith(("dashboard/agent.py", "agent/main.py")) for one in sys.orig_argv):
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.05)
"""
STARTED = """
import pathlib
from ml_platform.compute import executor_session, map_tasks
from ml_platform_tests.test_compute import scaled

with executor_session("ray"):
    pathlib.Path({go!r}).touch()
    print([value for value, _ in map_tasks(scaled, [2, 3], shared=2, executor="ray")])
"""


@pytest.mark.slow
def test_a_ray_starts_however_long_its_agents_take(tmp_path: Path) -> None:
    """They begin only once the start is over, as on a machine that is too busy for them."""
    go = str(tmp_path / "go")
    (tmp_path / "sitecustomize.py").write_text(HELD_BACK.format(go=go))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", STARTED.format(go=go)]
    done = subprocess.run(
        command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[4, 6]\n"), done.stderr
