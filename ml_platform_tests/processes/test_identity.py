import subprocess
import sys

from ml_platform.processes.identity import is_gone, this_process

TELL = "from ml_platform.processes.identity import this_process; print(this_process(), flush=True); input()"


def test_a_process_is_gone_once_it_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", TELL], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        assert not is_gone(identity)
        process.kill()
    assert is_gone(identity)


def test_another_process_with_the_same_number_is_not_taken_for_it() -> None:
    host, boot, number, started = this_process().split("/")
    assert is_gone(f"{host}/{boot}/{number}/{int(started) - 1}")
    assert is_gone(f"{host}/an earlier start of the machine/{number}/{started}")


def test_what_cannot_be_judged_is_not_gone() -> None:
    _, boot, number, started = this_process().split("/")
    for identity in ("", "nonsense", f"another-host/{boot}/{number}/{int(started) - 1}"):
        assert not is_gone(identity)
