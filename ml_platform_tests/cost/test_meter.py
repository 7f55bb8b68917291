"""What a meter accounts to whom, and how it stops what is over a limit."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from ml_platform.cost.limits import step_limits
from ml_platform.cost.meter import Meter
from ml_platform.cost.records import COMMAND, METER, Use, is_metered
from ml_platform.cost.step_stop import StepOverLimit
from ml_platform.processes.identity import this_process
from ml_platform.processes.usage import ProcessTree
from ml_platform.spec.budget import StepLimits

BURN = "import time, sys\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def lines(folder: Path) -> list[Use]:
    texts = [line for path in (folder / "usage").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return [msgspec.json.decode(text, type=Use) for text in texts]


def cpu(uses: list[Use], step: str) -> float:
    return sum(one.cpu_seconds for one in uses if one.step == step)


def test_a_step_in_this_process_and_one_of_its_own(tmp_path: Path) -> None:
    meter = Meter(tmp_path, COMMAND, {"job": "toy"})
    meter.start()
    assert os.environ[METER] == this_process()
    child = subprocess.Popen([sys.executable, "-c", BURN + "sys.stdin.read()"], stdin=subprocess.PIPE)
    meter.begin("child", {"asset": "toy/child"}, pid=child.pid)
    meter.begin("inside", {"asset": "toy/inside"})
    burn(0.4)
    meter.end("inside")
    child.communicate()
    meter.end("child")
    meter.close()
    uses = lines(tmp_path)
    assert 0.3 <= cpu(uses, "inside") <= 0.8
    assert 0.4 <= cpu(uses, "child") <= 1.5, "the whole of it, although nobody looked at its end"
    assert {one.job for one in uses} == {"toy"}
    assert METER not in os.environ


def test_a_step_that_was_killed_counts(tmp_path: Path) -> None:
    meter = Meter(tmp_path, COMMAND)
    meter.start()
    child = subprocess.Popen([sys.executable, "-c", BURN + "print(1, flush=True)\nsys.stdin.read()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    meter.begin("child", {}, pid=child.pid)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.wait()
    meter.end("child")
    meter.close()
    assert cpu(lines(tmp_path), "child") >= 0.4


def test_a_limit_raises_in_the_step_and_names_its_place(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGXCPU)
    meter = Meter(tmp_path, COMMAND)
    meter.start()
    limits = list(step_limits(StepLimits(cpu=timedelta(seconds=0.3)), "cost.yaml:2: step_limits"))
    meter.begin("greedy", {"asset": "toy/greedy"}, limits=limits)
    with pytest.raises(StepOverLimit, match=r"toy/greedy was stopped: it used .*Change cost.yaml:2: step_limits.cpu"):
        burn(120.0)
    assert meter.why_stopped("greedy")
    meter.end("greedy")
    meter.close()
    assert signal.getsignal(signal.SIGXCPU) == before


def test_what_a_metered_process_starts_does_not_account_for_itself(tmp_path: Path) -> None:
    meter = Meter(tmp_path, COMMAND)
    meter.start()
    code = "from ml_platform.cost.records import is_metered; print(is_metered())"
    inside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    meter.close()
    assert inside.stdout.strip() == "True"
    assert not is_metered()


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(tmp_path, COMMAND)
    meter.start()
    meter.begin("inside", {})
    burn(0.3)
    write = meter._log.write

    def full(_: list[Use]) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(meter._log, "write", full)
        with pytest.raises(OSError, match="No space"):
            meter.end("inside")
    assert meter._log.write == write
    meter.close()
    assert cpu(lines(tmp_path), "inside") >= 0.2


def test_a_tree_keeps_what_children_used_that_nobody_waited_for() -> None:
    tree = ProcessTree(os.getpid())
    before = tree.sample()
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        child = subprocess.Popen([sys.executable, "-c", BURN + "sys.stdin.read()"], stdin=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while tree.sample().since(before).cpu_seconds < 0.4 and time.monotonic() < deadline:
            time.sleep(0.05)
        used = tree.usage().cpu_seconds
        assert child.stdin is not None
        child.stdin.close()
        threading.Thread(target=child.wait).run()
        assert tree.sample().cpu_seconds >= used - 0.05
        assert tree.sample().cpu_seconds >= used - 0.05
    finally:
        signal.signal(signal.SIGCHLD, old)
