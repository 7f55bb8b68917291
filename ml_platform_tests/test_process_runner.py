"""The runner with small real processes: readiness, one dying, Ctrl-C, grandchildren, a taken port."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform import process_table
from ml_platform.process_runner import CannotStart, Process, run
from ml_platform_tests.ports import free_port

# Starts a grandchild in a session of its own, as daemons do, and tells its pid.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print("grandchild", child.pid, flush=True)
time.sleep(300)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(300)
"""


def http_server(port: int, **options) -> Process:
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    return Process("web", command, port=port, ready_path="/", **options)


def python(name: str, code: str) -> Process:
    return Process(name, [sys.executable, "-c", code])


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(text: str, log: Path) -> None:
    while not log.exists() or text not in log.read_text():
        time.sleep(0.05)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_oneshot_waits_for_http_and_stops_everything(tmp_path):
    port, seen = free_port(), []
    code = run(
        [http_server(port), python("parent", PARENT)], on_ready=lambda: seen.append("up"), oneshot=True, logs=tmp_path
    )
    assert (code, seen) == (0, ["up"])
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_grandchild_in_its_own_session_is_stopped(tmp_path):
    log = tmp_path / "parent.log"
    code = run([python("parent", PARENT)], on_ready=lambda: wait_for("\n", log), oneshot=True, logs=tmp_path)
    assert code == 0
    pid = int(log.read_text().split("grandchild ")[1].split()[0])
    assert not alive(pid)


def test_process_that_dies_is_named_with_its_last_lines(tmp_path, capsys):
    dying = python("dying", "import sys, time; time.sleep(0.5); print('no such table'); sys.exit(7)")
    assert run([http_server(free_port()), dying], logs=tmp_path) == 7
    out = capsys.readouterr().out
    assert "dying ended by itself with exit code 7" in out
    assert "    no such table" in out


def test_process_that_ends_well_by_itself_still_fails_the_run(tmp_path, capsys):
    assert run([python("short", "print('bye')"), python("long", "import time; time.sleep(300)")], logs=tmp_path) == 1
    assert "short ended by itself with exit code 0" in capsys.readouterr().out


def test_error_of_on_ready_is_raised_after_the_stop(tmp_path):
    port = free_port()
    with pytest.raises(LookupError, match="no flight"):
        run([http_server(port)], on_ready=lambda: (_ for _ in ()).throw(LookupError("no flight")), logs=tmp_path)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_process_that_never_answers_ends_the_run(tmp_path, capsys):
    silent = Process(
        "silent",
        [sys.executable, "-c", "import time; time.sleep(300)"],
        port=free_port(),
        ready_path="/",
        ready_seconds=1,
    )
    assert run([silent], logs=tmp_path) == 1
    assert "silent gave no answer at http://127.0.0.1:" in capsys.readouterr().out


def test_process_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("ml_platform.process_runner.STOP_SECONDS", 1.0)
    log = tmp_path / "stubborn.log"
    code = run([python("stubborn", STUBBORN)], on_ready=lambda: wait_for("deaf\n", log), oneshot=True, logs=tmp_path)
    assert code == 0


def test_taken_port_is_told_before_anything_starts(listener, tmp_path):
    marker = tmp_path / "started"
    other = python("other", f"open({str(marker)!r}, 'w')")
    with pytest.raises(CannotStart) as error:
        run([other, http_server(listener, port_variable="WEB_PORT")])
    assert f"port {listener} (web) is taken by pid {os.getpid()} (" in str(error.value)
    assert "or set WEB_PORT=<free port>" in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("number", "ready", "code"),
    [("SIGINT", True, 0), ("SIGTERM", True, 0), ("SIGHUP", True, 0), ("SIGINT", False, 130)],
)
def test_signal_stops_all(tmp_path, number, ready, code):
    port = free_port()
    path = "/" if ready else "/absent"
    script = textwrap.dedent(f"""
        import signal, sys
        from ml_platform.process_runner import Process, run
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell leaves it that starts a program with `&`
        command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
        web = Process("web", command, port={port}, ready_path="{path}")
        parent = Process("parent", [sys.executable, "-c", {PARENT!r}])
        sys.exit(run([web, parent], on_ready=lambda: print("READY", flush=True)))
    """)
    environment = {**os.environ, "TEST_SESSION": str(tmp_path)}
    runner = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    wanted, printed = ("READY", "grandchild") if ready else ("grandchild",), ""
    for line in runner.stdout:
        printed += line
        if all(text in printed for text in wanted):  # they come in any order
            break
    runner.send_signal(getattr(signal, number))
    runner.communicate(timeout=120)
    assert runner.returncode == code
    assert process_table.marked("TEST_SESSION", str(tmp_path)) == []
