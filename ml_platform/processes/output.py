"""Where the lines of the processes and of their runner go; a line that cannot be written must end none of them."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path


class Lines:
    """Writes lines; that some were lost, on a full disk or to a reader that has gone, is told once one can be written.

    Parameters
    ----------
    write
        Writes a line, or raises `OSError`.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._lock = write, threading.Lock()
        self._loss: OSError | None = None

    def write(self, line: str) -> None:
        """Write a line if that can be done."""
        with self._lock:
            try:
                if self._loss is not None:
                    self._write(f"(lines are missing here, which could not be written: {self._loss})")
                    self._loss = None
                self._write(line)
            except OSError as error:
                self._loss = error


def _print(line: str) -> None:
    print(line, flush=True)


TERMINAL = Lines(_print)


class Output:
    """Prints the processes' lines, or keeps them in a file each so that the terminal stays readable."""

    def __init__(self, names: Sequence[str], logs: Path | None) -> None:
        self._width = max(map(len, names), default=0)
        self._files: dict[str, Lines] = {}
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
            self._files = {name: Lines(_appends_to(logs / f"{name}.log")) for name in names}

    def write(self, name: str, line: str) -> None:
        """Write one line of a process."""
        now = f"{datetime.now():%H:%M:%S}"
        if name in self._files:
            self._files[name].write(f"{now} {line}")
        else:
            TERMINAL.write(f"{now} {name:{self._width}} | {line}")


def _appends_to(path: Path) -> Callable[[str], None]:
    def append(line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    return append
