"""The runner with small real processes: readiness, restarts, Ctrl-C, kill -9, grandchildren, a taken port."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_platform.processes import table
from ml_platform.processes.runner import CannotStart, Process, end_leftovers, run
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


def python(name: str, code: str, **options) -> Process:
    return Process(name, [sys.executable, "-c", code], **options)


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
    dying = python("dying", "import sys; print('no such table'); sys.exit(7)", restarts=0)
    assert run([dying], logs=tmp_path) == 7
    out = capsys.readouterr().out
    assert "dying ended by itself with exit code 7" in out
    assert "    no such table" in out
    assert "dying is given up" in out


def test_process_that_ends_well_by_itself_still_fails_the_run(tmp_path, capsys):
    assert run([python("short", "print('bye')", restarts=0)], logs=tmp_path) == 1
    assert "short ended by itself with exit code 0" in capsys.readouterr().out


def test_a_process_that_is_given_up_takes_no_other_with_it(tmp_path, capsys):
    """Even at the start: what can run is up, and the exit code remembers the loss."""
    web = http_server(free_port())
    lost: list[Any] = []

    def stop_when_up() -> None:
        while not lost:
            time.sleep(0.05)
        assert web.answers()
        os.kill(os.getpid(), signal.SIGTERM)

    dying = python("dying", "import sys; sys.exit(7)", restarts=1)
    code = run([web, dying], on_ready=stop_when_up, on_given_up=lambda *args: lost.append(args), logs=tmp_path)
    assert code == 7
    assert [(process.name, reason) for process, reason in lost] == [
        ("dying", "it ended by itself with exit code 7, 1 restarts in a row")
    ]
    out = capsys.readouterr().out
    assert "dying is started again in 1 s (1 of 1)" in out
    assert "still running: web" in out


def test_oneshot_fails_when_a_process_is_given_up(tmp_path):
    dying = python("dying", "import sys; sys.exit(7)", restarts=0)
    silent = http_server(free_port())
    silent = Process("silent", silent.command, port=silent.port, ready_path="/absent")
    assert run([silent, dying], on_ready=lambda: None, oneshot=True, logs=tmp_path) == 7


def test_a_killed_process_is_started_again_on_its_port(tmp_path, capsys):
    """Its worker holds the port on; it goes before the next life begins."""
    port = free_port()
    worker = f"import http.server as s; s.test(s.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"
    program = f"import subprocess, sys; print('up', flush=True); subprocess.run([sys.executable, '-c', {worker!r}])"
    web = python("web", program, port=port, ready_path="/")
    other = python("other", "import os, time; print(os.getpid(), flush=True); time.sleep(300)")

    def kill_once() -> None:
        first = table.marked({"ML_PLATFORM_PROCESS": "web", "TEST_SESSION": str(tmp_path)})
        os.kill(min(first), signal.SIGKILL)
        wait_for("up\n" * 1, tmp_path / "web.log")
        while (tmp_path / "web.log").read_text().count("up") < 2 or not web.answers():
            time.sleep(0.05)

    os.environ["TEST_SESSION"] = str(tmp_path)
    try:
        assert run([web, other], on_ready=kill_once, oneshot=True, logs=tmp_path) == 0
    finally:
        del os.environ["TEST_SESSION"]
    out = capsys.readouterr().out
    assert "web ended by itself by SIGKILL" in out
    assert "other ended" not in out


def test_what_a_code_server_started_outlives_it(tmp_path):
    """A run goes on while the server that launched it is started again."""
    log = tmp_path / "parent.log"
    parent = python("parent", PARENT, keeps_children=True)

    def kill_once() -> None:
        wait_for("\n", log)
        (pid,) = table.marked({"ML_PLATFORM_PROCESS": "parent", "TEST_SESSION": str(tmp_path)})[:1]
        os.kill(pid, signal.SIGKILL)
        while log.read_text().count("grandchild") < 2:
            time.sleep(0.05)
        assert alive(int(log.read_text().split("grandchild ")[1].split()[0]))

    os.environ["TEST_SESSION"] = str(tmp_path)
    try:
        assert run([parent], on_ready=kill_once, oneshot=True, logs=tmp_path) == 0
    finally:
        del os.environ["TEST_SESSION"]
    assert table.marked({"TEST_SESSION": str(tmp_path)}) == []


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
        ready_seconds_variable="PATIENCE_SECONDS",
        restarts=0,
    )
    assert run([silent], logs=tmp_path) == 128 + signal.SIGKILL
    printed = capsys.readouterr().out
    assert f"silent gave no answer at {silent.url}/ within 1 s: it is ended" in printed
    assert "; if the machine is only busy, set PATIENCE_SECONDS=<more seconds>" in printed


def test_process_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("ml_platform.processes.runner.STOP_SECONDS", 1.0)
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
        from ml_platform.processes.runner import Process, run
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell leaves it that starts a program with `&`
        command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
        web = Process("web", command, port={port}, ready_path="{path}")
        parent = Process("parent", [sys.executable, "-c", {PARENT!r}])
        sys.exit(run([web, parent], on_ready=lambda: print("READY", flush=True)))
    """)
    environment = {**os.environ, "TEST_SESSION": str(tmp_path)}
    runner = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    wanted, printed = ("READY", "grandchild") if ready else ("grandchild",), ""
    assert runner.stdout is not None
    for line in runner.stdout:
        printed += line
        if all(text in printed for text in wanted):  # they come in any order
            break
    runner.send_signal(getattr(signal, number))
    runner.communicate(timeout=120)
    assert runner.returncode == code
    assert table.marked({"TEST_SESSION": str(tmp_path)}) == []


def start_runner(tmp_path: Path, port: int, home: Path) -> subprocess.Popen:
    script = textwrap.dedent(f"""
        import sys
        from ml_platform.processes.runner import Process, run
        command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
        home = {{"ML_PLATFORM_HOME": {str(home)!r}}}
        web = Process("web", command, port={port}, ready_path="/", environment=home)
        parent = Process("parent", [sys.executable, "-c", {PARENT!r}], environment=home)
        sys.exit(run([web, parent], on_ready=lambda: print("READY", flush=True)))
    """)
    environment = {**os.environ, "TEST_SESSION": str(tmp_path)}
    runner = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    printed = ""
    while "READY" not in printed or "grandchild" not in printed:
        printed += runner.stdout.readline()
    return runner


def test_nothing_outlives_a_runner_that_was_killed(tmp_path):
    runner = start_runner(tmp_path, free_port(), tmp_path)
    runner.kill()
    runner.communicate(timeout=60)
    while table.marked({"TEST_SESSION": str(tmp_path)}):
        time.sleep(0.05)


def test_a_second_run_on_the_same_home_is_refused_and_leftovers_are_ended(tmp_path, capsys):
    home = tmp_path / "home"
    web = http_server(free_port())
    runner = start_runner(tmp_path, free_port(), home)
    with pytest.raises(CannotStart, match=rf"web already runs on .*home: pid \d+, started by pid {runner.pid}"):
        end_leftovers([web], home)
    end_leftovers([web], tmp_path / "another")
    # The guard goes first, so that nobody is left to clear up.
    guard = [pid for pid in table.marked({"TEST_SESSION": str(tmp_path)}) if "stdin" in table.command(pid)]
    for pid in (*guard, runner.pid):
        os.kill(pid, signal.SIGKILL)
    runner.wait(timeout=60)
    end_leftovers([web, python("parent", "")], home)
    assert "ending what an earlier run left behind: web, pid" in capsys.readouterr().out
    assert table.marked({"TEST_SESSION": str(tmp_path)}) == []
