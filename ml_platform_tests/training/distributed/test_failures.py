"""What is told when workers fail, what is kept to go on from, and who ends a training by Ctrl-C."""

import os
import signal
import threading
from pathlib import Path

import pytest

from ml_platform.lake.storage.tables import Lake
from ml_platform.training.distributed.fit import plan_fit
from ml_platform.training.distributed.fit_state import FitState
from ml_platform.training.distributed.ray_train import FOLDER, failure_reason, fit_key, in_own_thread, remove_others
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops
from ml_platform_tests.training.distributed.worlds import stored_rows


class Failed(RuntimeError):
    """As Ray Train raises it."""

    def __init__(self, **failures: Exception) -> None:
        super().__init__("Training failed due to worker errors:\n…")
        self.worker_failures = failures


def test_each_reason_of_the_workers_is_told_once_and_shortly() -> None:
    died = RuntimeError("The actor is dead because its worker process has died. Some common causes\ninclude: (1) …")
    lost = RuntimeError("Traceback\n  …\nSocket recv error, Connection reset by peer (code: 104).")
    reason = failure_reason(Failed(first=died, second=lost, third=lost))
    assert reason == "Socket recv error, Connection reset by peer (code: 104); the process of a worker died"
    assert failure_reason(RuntimeError("no cluster")) == "no cluster"
    assert failure_reason(RuntimeError()) == "RuntimeError"


def test_ctrl_c_ends_the_waiting_for_workers() -> None:
    started, ended = threading.Event(), threading.Event()

    def fit() -> None:
        started.set()
        ended.wait()

    def interrupt() -> None:
        started.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        in_own_thread(fit)
    ended.set()
    assert in_own_thread(lambda: 3) == 3
    with pytest.raises(Failed):
        in_own_thread(lambda: _raise(Failed()))


def test_a_fit_goes_on_only_from_what_was_kept_of_the_same_one(trained_shops: tuple[Shops, TrainedModel]) -> None:
    stored, cuts = stored_rows(*trained_shops)
    keys = [
        fit_key(plan_fit(stored, [cuts.train], family, params, seeks_rounds=seeks)[0])
        for family, params, seeks in (
            ("lightgbm", {"n_estimators": 5}, False),
            ("lightgbm", {"n_estimators": 5}, False),
            ("lightgbm", {"n_estimators": 6}, False),
            ("xgboost", {"n_estimators": 5}, False),
            ("lightgbm", {"n_estimators": 5}, True),
        )
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_what_killed_processes_left_of_other_fits_of_the_model_is_removed(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for name in ("late-aa", "late-bb", "late_too-cc"):
        (tmp_path / FOLDER / name).mkdir(parents=True)
    remove_others(lake, "late", "late-bb")
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["late-bb", "late_too-cc"]


def test_a_checkpoint_gives_back_how_far_a_fit_is(tmp_path: Path) -> None:
    state = FitState("rounds", rounds=3, curve=[0.5, 0.25], model=b"\x00trees")
    state.write(tmp_path)
    assert FitState.read(tmp_path) == state


def _raise(error: Exception) -> None:
    raise error
