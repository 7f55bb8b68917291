"""Decodes Parquet files in a child process, so that a bad file cannot harm the worker.

Arrow would add half as much again to a worker's memory; a file of a few bytes can make it use any amount of memory and
time; and one wrong bit in a footer's statistics makes it abort its process (Arrow 25). So the worker starts a child for
the first file. The child may use `EXTRA_BYTES` of memory, and `CPU_SECONDS` per file; if a file kills it, it is
replaced. It ends with the worker, or when no file has come for `IDLE_SECONDS`.

The child inherits none of the worker's environment, which may hold passwords, can gain no privileges, and can neither
write files nor start processes.

The child reads a `Task` (JSON) and the file from its stdin and writes the answer to its stdout, each prefixed by its
length.
"""

import ctypes
import logging
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from ml_platform.registry.manifest import Input
from ml_platform.serving.bounded_worker import BoundedWorker
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.parquet import body_of_parquet
from ml_platform.serving.settings import ServingSettings

EXTRA_BYTES = 192 * 2**20
CPU_SECONDS = 5
IDLE_SECONDS = 300.0
_WALL_SECONDS = 60.0  # for a file whose decoding waits for anything but the processor
_BOUNDS = f"{EXTRA_BYTES // 2**20} MiB of memory and {CPU_SECONDS} s of time"
_LENGTH = struct.Struct(">Q")
_OPEN_FILES = 32
_PR_SET_NO_NEW_PRIVS = 38  # of prctl(2)
_INHERITED = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")  # without which an interpreter may not find its libraries
_ENVIRONMENT = {  # reserve no memory in advance, and give back what a file took
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}

logger = logging.getLogger("serving")


class Task(msgspec.Struct, array_like=True):
    """How a file is to be read: the model's inputs, and whether other columns are refused."""

    inputs: list[Input]
    strict: bool


class Fault(msgspec.Struct, array_like=True):
    """What is wrong with a file."""

    status: int
    field: str | None
    message: str


class ParquetProcess:
    """The worker's end. Files are decoded one after another."""

    def __init__(self, settings: ServingSettings) -> None:
        self._worker = BoundedWorker("Parquet", settings.max_queue, settings)
        self._process: subprocess.Popen[bytes] | None = None

    async def translate(self, body: bytes, inputs: Sequence[Input], *, strict: bool = False) -> bytes:
        """Write a file's rows as a body of `/predict/{model}`; with `strict`, refuse other columns (raises Refused)."""
        task = Task(list(inputs), strict)
        written: bytes = await self._worker.submit(lambda: self._translate(body, task))
        return written

    def queues(self) -> dict[str, int]:
        """Number of files that the child works on or that wait for it."""
        return {"parquet": self._worker.queued}

    def close(self) -> None:
        """Finish the files that wait, and end the child."""
        self._worker.close()
        self._end()

    def _translate(self, body: bytes, task: Task) -> bytes:
        is_fresh = not self._is_running()
        answered = self._ask(body, task)
        if answered is None and not is_fresh:  # it may have ended for another reason, such as being idle
            self._end()
            answered = self._ask(body, task)
        if answered is None:
            logger.error("decoding a Parquet file ended its process: exit code %s", self._end())
            message = f"the Parquet file cannot be decoded: it is damaged, or takes more than {_BOUNDS}"
            raise Refused(400, "invalid_parquet", message)
        fault, written = answered
        if fault:
            problem = msgspec.json.decode(fault, type=Fault)
            raise Refused.of(InvalidRequest(problem.status, [Problem(None, problem.field, problem.message)]))
        return written

    def _ask(self, body: bytes, task: Task) -> tuple[bytes, bytes] | None:
        """The child's answer: fault and body, one of them empty. None when it ends instead (raises Refused)."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(_WALL_SECONDS, process.kill)
        timer.start()
        try:
            _send(process.stdin, msgspec.json.encode(task))
            _send(process.stdin, body)
            fault, written = _receive(process.stdout), _receive(process.stdout)
        except OSError:
            return None
        finally:
            timer.cancel()
        return None if fault is None or written is None else (fault, written)

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _running(self) -> subprocess.Popen[bytes]:
        """The child, started if there is none (raises Refused)."""
        if self._process is not None and self._is_running():
            return self._process
        self._end()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ml_platform.serving.inputs.parquet_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**{name: os.environ[name] for name in _INHERITED if name in os.environ}, **_ENVIRONMENT},
                cwd=Path(__file__).parents[3],
            )
            assert self._process.stdout is not None
            ready = _receive(self._process.stdout)
        except OSError as error:
            ready, reason = None, str(error.strerror)
        else:
            reason = "it ended at once"
        if self._process is None or ready is None:
            self._end()
            logger.error("the process that decodes Parquet files cannot be started: %s", reason)
            message = "Parquet files cannot be decoded now; the server's log has the reason"
            raise Refused(503, "parquet_unavailable", message, retry_after=5)
        return self._process

    def _end(self) -> int | None:
        """End the child, if there is one, and return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        with process:  # waits for it, and closes its pipes
            assert process.stdin is not None
            try:
                process.stdin.close()
                process.wait(timeout=5)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
        return process.returncode


def main() -> int:
    """Decode files until there are no more; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the worker's whole process group, and it ends the child
        signal.signal(number, signal.SIG_IGN)
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    _bound_memory()
    _give_up_rights()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _send(sink, b"ready")
    while select.select([source], [], [], IDLE_SECONDS)[0]:
        task, body = _receive(source), _receive(source)
        if task is None or body is None:
            break
        _bound_time()
        fault, answer = _answer(body, msgspec.json.decode(task, type=Task))
        _send(sink, fault)
        _send(sink, answer)
    return 0


def _answer(body: bytes, task: Task) -> tuple[bytes, bytes]:
    try:
        return b"", body_of_parquet(body, task.inputs, strict=task.strict)
    except InvalidRequest as invalid:
        [problem] = invalid.problems
        fault = Fault(invalid.status, problem.field, problem.message)
    except MemoryError:
        message = f"the Parquet file cannot be decoded within {_BOUNDS}: send fewer rows per request"
        fault = Fault(413, None, message)
    return msgspec.json.encode(fault), b""


def _bound_memory() -> None:
    """Let this process use `EXTRA_BYTES` more memory than it uses now."""
    statm = Path("/proc/self/statm")
    if statm.exists():  # other systems than Linux do not enforce this limit reliably
        size = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA_BYTES, resource.RLIM_INFINITY))


def _give_up_rights() -> None:
    """Write no file, start no process or thread, open few files, gain no privileges: decoding needs none of it."""
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, _OPEN_FILES)):
        resource.setrlimit(limit, (most, most))
    if hasattr(resource, "RLIMIT_NPROC"):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # of the user: not enforced for root
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS) failed")


def _bound_time() -> None:
    """Let this process use `CPU_SECONDS` more processor time than it has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """One message; None at the stream's end."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    return content if len(content) == length else None


if __name__ == "__main__":
    sys.exit(main())
