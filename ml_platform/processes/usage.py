"""What a process and all that it started have used: CPU, memory, bytes; read from Linux's /proc while they run.

A process's own counters include those of the children that it has waited for, so the sum over the processes that are
there is the whole tree's, with two exceptions that are made good here: a child that nobody waited for, and one whose
parent ended before it.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ml_platform.processes import table

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_STATE, _PARENT, _TIMES, _STARTED = 0, 1, slice(11, 15), 19  # fields of /proc/<pid>/stat after the name, see proc(5)


@dataclass(frozen=True)
class Usage:
    """What was used.

    Attributes
    ----------
    cpu_seconds
        Of all threads, in user mode and in the kernel.
    bytes_read, bytes_written
        By system calls that read and write: files, also those in the page cache, and pipes.
    memory_bytes
        In use now: each page shared by n processes counts 1/n for each (PSS).
    """

    cpu_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    memory_bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Sum."""
        return Usage(
            self.cpu_seconds + other.cpu_seconds,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            self.memory_bytes + other.memory_bytes,
        )

    def since(self, earlier: "Usage") -> "Usage":
        """What was used since an earlier state; memory is that of now. Never negative.

        Examples
        --------
        >>> Usage(3.0, 10, 0, 7).since(Usage(1.0, 4, 0, 9))
        Usage(cpu_seconds=2.0, bytes_read=6, bytes_written=0, memory_bytes=7)
        """
        return Usage(
            max(self.cpu_seconds - earlier.cpu_seconds, 0.0),
            max(self.bytes_read - earlier.bytes_read, 0),
            max(self.bytes_written - earlier.bytes_written, 0),
            self.memory_bytes,
        )


@dataclass
class _Seen:
    """A process as it was last seen."""

    parent: int
    started: int
    own_ticks: int
    waited_ticks: int
    owner: int  # the watched process that it belongs to
    bytes_read: int = 0
    bytes_written: int = 0
    memory_bytes: int = 0
    is_gone: bool = False

    @property
    def ticks(self) -> int:
        return self.own_ticks + self.waited_ticks


@dataclass
class _Lost:
    """What processes had used that are gone and of which no counter knows any more."""

    ticks: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass
class ProcessTree:
    """A process with all its descendants, whose use is asked for again and again.

    Parameters
    ----------
    root
        Its process id.
    marks
        Process ids that belong to the tree although their parents do not, such as daemons; called with each sample that
        looks for them.

    Examples
    --------
    >>> tree = ProcessTree(os.getpid())
    >>> before = tree.sample()
    >>> _ = sum(range(3_000_000))
    >>> tree.sample().cpu_seconds > before.cpu_seconds
    True
    """

    root: int
    marks: Callable[[], Iterable[int]] = tuple
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _lost: dict[int, _Lost] = field(default_factory=dict)  # by owner
    _watched: dict[int, int] = field(default_factory=dict)  # process → when it was started

    def watch(self, pid: int) -> None:
        """Keep account of a process of the tree, with its descendants, for itself too."""
        begun = table.started(pid)
        if begun is not None:
            self._watched[pid] = begun
            self._lost[pid] = _Lost()
            for one, seen in self._seen.items():
                if self._owner(one) == pid:
                    seen.owner = pid

    def sample(self, *, memory: bool = True, marked: bool = False) -> Usage:
        """Look at all processes; return what the tree has used since it began."""
        stats = {pid: fields for pid in _pids() if (fields := _stat(pid)) is not None}
        members = self._members(stats, set(self.marks()) if marked else set())
        before, self._seen = self._seen, {}
        for pid in members:
            fields = stats[pid]
            times = [int(ticks) for ticks in fields[_TIMES]]
            old = before.get(pid)
            is_same = old is not None and old.started == int(fields[_STARTED])
            seen = _Seen(int(fields[_PARENT]), int(fields[_STARTED]), times[0] + times[1], times[2] + times[3], 0)
            seen.bytes_read, seen.bytes_written = _bytes(pid)
            if memory and fields[_STATE] != "Z":
                seen.memory_bytes = _pss(pid)
            elif is_same and old is not None:
                seen.memory_bytes = old.memory_bytes
            if fields[_STATE] == "Z" and is_same and old is not None:  # its files in /proc are empty now
                seen.bytes_read, seen.bytes_written = old.bytes_read, old.bytes_written
            self._seen[pid] = seen
            # A daemon stays with whom it was found with first, wherever it hangs now.
            seen.owner = old.owner if is_same and old is not None and old.owner != self.root else self._owner(pid)
        self._account_for_ended(before)
        return self.usage()

    def usage(self, watched: int | None = None) -> Usage:
        """Return what the tree, or one of its watched processes with its descendants, had used when last looked at."""
        seen = [one for one in self._seen.values() if watched is None or one.owner == watched]
        lost = [one for owner, one in self._lost.items() if watched is None or owner == watched]
        return Usage(
            (sum(one.ticks for one in seen) + sum(one.ticks for one in lost)) / TICKS,
            sum(one.bytes_read for one in seen) + sum(one.bytes_read for one in lost),
            sum(one.bytes_written for one in seen) + sum(one.bytes_written for one in lost),
            sum(one.memory_bytes for one in seen),
        )

    def processes(self, watched: int) -> list[int]:
        """Return the processes that belonged to a watched one when last looked at, itself included."""
        return [pid for pid, one in self._seen.items() if one.owner == watched and not one.is_gone]

    def _members(self, stats: dict[int, list[str]], marked: set[int]) -> list[int]:
        children: dict[int, list[int]] = {}
        for pid, fields in stats.items():
            children.setdefault(int(fields[_PARENT]), []).append(pid)
        known = {pid for pid, one in self._seen.items() if pid in stats and int(stats[pid][_STARTED]) == one.started}
        waiting, members = [self.root, *known, *(marked & stats.keys())], set()
        while waiting:
            pid = waiting.pop()
            if pid in stats and pid not in members:
                members.add(pid)
                waiting += children.get(pid, ())
        return sorted(members)

    def _owner(self, pid: int) -> int:
        """The nearest watched ancestor, itself included; the root where there is none."""
        for _ in range(1000):
            if pid in self._watched and (pid not in self._seen or self._seen[pid].started == self._watched[pid]):
                return pid
            if pid not in self._seen:
                break
            pid = self._seen[pid].parent
        return self.root

    def _account_for_ended(self, before: dict[int, _Seen]) -> None:
        """Keep what ended processes had used, unless the counters of an ancestor have it now.

        Processes are not looked at all at once: an ancestor may have been looked at just before it got to know of the
        end. So what is missing there is waited for until the next time, and counts meanwhile.
        """
        ended: dict[int, list[tuple[int, _Seen]]] = {}
        for pid, was in before.items():
            if not self._lives_on(pid, was):
                ended.setdefault(self._heir(was, before), []).append((pid, was))
        for heir, children in ended.items():
            waited = _Lost()
            if heir:
                was, new = before[heir], self._seen[heir]
                waited = _Lost(
                    new.waited_ticks - was.waited_ticks,
                    new.bytes_read - was.bytes_read,
                    new.bytes_written - was.bytes_written,
                )
            for pid, child in children:
                if heir and waited.ticks < child.ticks and not child.is_gone and pid not in self._seen:
                    child.is_gone, child.memory_bytes = True, 0
                    self._seen[pid] = child
                    continue
                # What it used after it was last looked at is known when it is the only one that ended.
                ticks = waited.ticks if len(children) == 1 else min(waited.ticks, child.ticks)
                read, written = min(waited.bytes_read, child.bytes_read), min(waited.bytes_written, child.bytes_written)
                waited = _Lost(waited.ticks - ticks, waited.bytes_read - read, waited.bytes_written - written)
                # Its use stays with its owner, and the heir's counters have it too.
                self._keep(
                    child.owner,
                    max(child.ticks, ticks),
                    max(child.bytes_read, read),
                    max(child.bytes_written, written),
                )
                if heir:
                    self._keep(self._seen[heir].owner, -ticks, -read, -written)

    def _lives_on(self, pid: int, was: _Seen) -> bool:
        new = self._seen.get(pid)
        return new is not None and new.started == was.started and not new.is_gone

    def _heir(self, ended: _Seen, before: dict[int, _Seen]) -> int:
        """The nearest ancestor that still lives, whose counters have what its descendants used; 0 for none."""
        parent = ended.parent
        while parent in before:
            if self._lives_on(parent, before[parent]):
                return parent
            parent = before[parent].parent
        return 0

    def _keep(self, owner: int, ticks: int, bytes_read: int, bytes_written: int) -> None:
        kept = self._lost.setdefault(owner, _Lost())
        kept.ticks += ticks
        kept.bytes_read += bytes_read
        kept.bytes_written += bytes_written


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(table.PROC) if name.isdigit()]
    except OSError:  # a system without /proc
        return []


def _read(pid: int, name: str) -> bytes:
    try:
        file = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except OSError:  # ended meanwhile, or another user's
        return b""
    try:
        return os.read(file, 4096)
    except OSError:
        return b""
    finally:
        os.close(file)


def _stat(pid: int) -> list[str] | None:
    fields = _read(pid, "stat").rpartition(b")")[2].decode().split()
    return fields if len(fields) > _STARTED else None


def _bytes(pid: int) -> tuple[int, int]:
    values = dict(line.split(b": ") for line in _read(pid, "io").splitlines() if b": " in line)
    return int(values.get(b"rchar", 0)), int(values.get(b"wchar", 0))


def _pss(pid: int) -> int:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0
