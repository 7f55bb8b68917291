"""What a run that did not come to its end is told as: real runs of Dagster, interrupted as Ctrl-C and SIGTERM do it."""

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest
from optuna.storages.journal import JournalFileSymlinkLock

from ml_platform.orchestration.model_run import Progress, RunFailed, RunInterrupted
from ml_platform.orchestration.run_failure import failure_message

GOES_ON = "interrupted in lk/candidates; finished trials are kept: ml-platform run lk goes on"


def message_of(body: Callable[[], None], name: str = "candidates", hooks: Sequence[dg.HookDefinition] = ()) -> str:
    @dg.asset(name=name, key_prefix="lk", hooks=set(hooks))
    def step() -> None:
        body()

    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([step], instance=instance, raise_on_error=False)
    finally:
        for one, handler in handlers.items():  # Dagster leaves its own for SIGTERM
            signal.signal(one, handler)
    assert not result.success
    return failure_message(
        result.all_events,
        model="lk",
        names={f"lk__{name}": f"lk/{name}"},
        after_trials={"lk/candidates"},
        checks=["lk/candidates, check some: no"],
        run_url="http://127.0.0.1:1/runs/7",
    )


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """No garbage collection: an interrupt that arrives in a callback of one, as hypothesis has some, is swallowed."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_told_with_what_is_kept(number: signal.Signals) -> None:
    assert message_of(lambda: os.kill(os.getpid(), number)) == GOES_ON
    told = message_of(lambda: os.kill(os.getpid(), number), "training_set")
    assert told == "interrupted in lk/training_set; ml-platform run lk goes on"


def test_an_interruption_between_two_steps_is_told() -> None:
    @dg.success_hook
    def interrupt(context: dg.HookContext) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    between = message_of(lambda: None, hooks=[interrupt])
    assert between == "interrupted between two steps; ml-platform run lk goes on"


def test_an_interruption_behind_an_error_of_cleaning_up_is_one(tmp_path: Path) -> None:
    lock = JournalFileSymlinkLock(str(tmp_path / "a.journal"))

    def interrupted_behind_the_lock() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            lock.release()  # as Optuna does, when it did not have it yet
            raise

    assert message_of(interrupted_behind_the_lock) == GOES_ON

    def interrupted_as_a_cause() -> None:
        try:
            interrupted_behind_the_lock()
        except RuntimeError as error:
            raise ValueError("the study cannot be kept") from error

    assert message_of(interrupted_as_a_cause) == GOES_ON


def test_an_error_is_told_with_its_first_cause() -> None:
    def fail() -> None:
        try:
            raise OSError("no   room")
        except OSError as error:
            raise ValueError("not kept") from error

    assert message_of(fail).splitlines() == [
        "lk/candidates failed: OSError: no room",
        "  lk/candidates, check some: no",
        "What the run did is in the Dagster UI (`make dev`): http://127.0.0.1:1/runs/7",
        "When that is mended: ml-platform run lk",
    ]


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, RunInterrupted), (None, RunFailed)], ids=["interrupted", "failed"]
)
def test_a_run_raises_what_ended_it(number: signal.Signals | None, expected: type[Exception]) -> None:
    @dg.asset(key_prefix="lk")
    def training_set() -> None:
        if number is None:
            raise ValueError("no rows")
        os.kill(os.getpid(), number)

    definitions = dg.Definitions(assets=[training_set], jobs=[dg.define_asset_job("train", [training_set])])
    progress = Progress(lambda _: None, [training_set.key], "http://127.0.0.1:1", "lk")
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(RunFailed) as raised:
        progress.execute(definitions.resolve_job_def("train"), instance, None)
    assert type(raised.value) is expected
