"""Checks of processes: who has the ports, and what killed runs left behind."""

import os
import socket
from collections.abc import Iterator

from ml_platform.doctor.findings import Finding, ok, warning
from ml_platform.processes import table
from ml_platform.processes.child import NAME_MARK, RUNNER_MARK
from ml_platform.processes.platform import port_variable, ports
from ml_platform.processes.runner import runner_of
from ml_platform.settings import Settings


def listening(settings: Settings) -> Iterator[Finding]:
    """Check that each port of `make dev` is free, or a process's of this home."""
    for name, port in ports().items():
        with socket.socket() as probe:
            probe.settimeout(1.0)
            is_taken = probe.connect_ex(("127.0.0.1", port)) == 0
        if not is_taken:
            yield ok("ports", f"{port} is free for {name}")
            continue
        who = table.listener(port) or "a process of another user or container"
        pid = who.removeprefix("pid ").split(" ", maxsplit=1)[0]
        if pid.isdigit() and table.variable(int(pid), "ML_PLATFORM_HOME") == str(settings.home):
            yield ok("ports", f"{port}: {name} of this home, {who}")
        else:
            yield warning(
                "ports",
                f"{port}, meant for {name}, is taken by {who}",
                f"end that, or set {port_variable(name)} or ports: in environments.yaml",
            )


def leftovers(settings: Settings) -> Iterator[Finding]:
    """Check that no process of this home has outlived the run that started it."""
    pids = []
    for pid in table.marked({"ML_PLATFORM_HOME": str(settings.home)}):
        name, token = table.variable(pid, NAME_MARK), table.variable(pid, RUNNER_MARK)
        if name and token and pid != os.getppid() and runner_of(token) is None:
            pids.append(pid)
            yield warning(
                "processes",
                f"{name}, pid {pid}, is left from a run that was killed",
                f"make dev ends it at its start; at once: kill {pid}",
            )
    if not pids:
        yield ok("processes", "none is left from a run that was killed")
