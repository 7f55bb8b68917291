"""Both ends of a process that stands for one store: it is told in JSON lines what to write and read, and times itself.

Needs the standard library alone, so that it runs in any environment.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

Answers = list[dict[str, Any]]


class Store(Protocol):
    """What is compared."""

    def write(self, view: str, path: str) -> None:
        """Write the rows of a Parquet file to a view."""
        ...

    def read(self, keys: Sequence[str]) -> Answers:
        """Give of each entity the features of all views by their full names, None where there are none."""
        ...


def serve(store: Store) -> None:
    """Do what standard input says until it ends; one line of JSON goes back for each."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between the answers
    for line in sys.stdin:
        task = json.loads(line)
        if "write" in task:
            cpu, start = time.process_time(), time.perf_counter()
            for view, path in task["write"].items():
                store.write(view, path)
            answer: Any = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        elif "time" in task:
            answer = _timed(store, task["time"])
        else:
            answer = store.read(task["read"])
        out.write(json.dumps(answer) + "\n")


def _timed(store: Store, calls: list[list[str]]) -> dict[str, float]:
    read, clock, taken = store.read, time.perf_counter, []
    cpu = time.process_time()
    for keys in calls:
        start = clock()
        read(keys)
        taken.append(clock() - start)
    return {"seconds": statistics.median(taken), "cpu": (time.process_time() - cpu) / len(calls)}


class Contender:
    """A process that serves a store, from the side that asks."""

    def __init__(self, command: Sequence[str]) -> None:
        quiet = {**os.environ, "DO_NOT_TRACK": "1", "FEAST_USAGE": "False"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=quiet
        )

    def write(self, paths: dict[str, str]) -> dict[str, float]:
        """Write a file to each view; gives the seconds that it took, and those on the CPU."""
        return dict(self._ask({"write": paths}))

    def time(self, calls: list[list[str]]) -> dict[str, float]:
        """Read once for each list of keys; gives the median seconds, and the mean on the CPU."""
        return dict(self._ask({"time": calls}))

    def read(self, keys: list[str]) -> Answers:
        """Give the answers themselves."""
        return list(self._ask({"read": keys}))

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()

    def _ask(self, task: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args}: it ended with code {self._process.wait()}; see what it printed")
        return json.loads(line)
