"""What a worker used is divided among models and callers, and adds up to its process."""

import time
from pathlib import Path

import msgspec
import pytest

from ml_platform.cost.records import Use
from ml_platform.serving.telemetry.usage import UsageTally
from ml_platform.settings import Settings


def lines(settings: Settings) -> list[Use]:
    texts = [line for path in settings.cost_dir.glob("usage/*.jsonl") for line in path.read_bytes().splitlines()]
    return [msgspec.json.decode(text, type=Use) for text in texts]


def test_a_worker_is_divided_by_the_time_of_its_requests(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    counted: dict[str, float] = {}
    tally = UsageTally(settings, lambda model, seconds: counted.update({model: counted.get(model, 0) + seconds}))
    tally.start()
    begun = time.process_time()
    for _ in range(30):
        tally.note("a", "shop", 0.03, 2)
    tally.note("b", "anonymous", 0.1, 1)
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    tally.close()
    used = time.process_time() - begun
    uses = {one.model: one for one in lines(settings)}
    assert (uses["a"].key, uses["a"].requests, uses["a"].rows) == ("shop", 30, 60)
    assert uses["a"].cpu_seconds == pytest.approx(9 * uses["b"].cpu_seconds, rel=0.01)
    assert sum(one.cpu_seconds for one in uses.values()) == pytest.approx(used, abs=0.15)
    assert counted["a"] == uses["a"].cpu_seconds


def test_what_cannot_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    tally = UsageTally(settings)
    tally.start()
    tally.note("a", "shop", 0.1, 1)

    def full(_: list[Use]) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tally._log, "write", full)
        tally.write()
    assert not lines(settings)
    tally.note("a", "shop", 0.1, 1)
    tally.close()
    assert sum(one.requests for one in lines(settings)) == 2
