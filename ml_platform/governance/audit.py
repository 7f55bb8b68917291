"""The audit log's writing half: who did what, when, and how it ended, in lines that vouch for one another.

Each process appends to a file of its own. A line ends in an HMAC over itself and the HMAC of the line before, so that
none can be altered, taken out or moved without the secret, which lies beside the API keys. The first line of a file
names how far every other file had come (`heads`), so that none can be cut short or deleted from then on.

Serving imports this: standard library and msgspec only.
"""

import getpass
import hmac
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ml_platform.secret_file import load_secret
from ml_platform.segment_log.segments import SUFFIX, Segment

TABLE = "governance/audit"  # in the lake, where its files are ingested
SECRET = "audit.secret"  # beside the keys
REQUEST, OPENED = "request", "opened"
SEGMENT_BYTES = 64 * 2**20
_SEAL = b',"mac":"'
_SEAL_BYTES = len(_SEAL) + 32 + len(b'"}')
_HEADS = 100  # newest files that a first line names: older ones were named before
_TAIL_BYTES = 2**16

Heads = dict[str, tuple[int, str]]

_encode = msgspec.json.Encoder().encode


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One event; of a request, never its content or answer.

    `key` and `name` tell who: a key's id or `sub:` and a token's subject, or nothing for a person at a terminal.
    """

    number: int = -1  # in its file, from 0
    time: datetime
    action: str = REQUEST
    request_id: str | None = None
    key: str | None = None
    name: str | None = None
    client: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    rows: int | None = None  # that were predicted, looked up or pushed
    detail: str | None = None
    heads: Heads = {}  # of each other file, how many lines it had and the last one's HMAC


class AuditLog:
    """Appends entries below a folder. For one thread.

    Examples
    --------
    >>> import tempfile
    >>> home = Path(tempfile.mkdtemp())
    >>> log = AuditLog(home / "audit", home / "keys")
    >>> log.record(Entry(time=datetime.now(UTC), action="key created", name="ada", detail="nightly job"))
    >>> log.close()
    >>> [path.read_bytes().count(b"\\n") for path in (home / "audit").glob("*.jsonl")]
    [2]
    """

    def __init__(self, folder: Path, secret_folder: Path) -> None:
        self._folder = folder
        self._secret_folder = secret_folder
        self._secret = b""
        self._segment: Segment | None = None
        self._day = ""
        self._mac = b""
        self._number = 0

    def record(self, *entries: Entry) -> None:
        """Append entries of one instant by one write, which survive the death of this process (raises OSError)."""
        day = entries[0].time.date().isoformat()
        if self._segment is None or day != self._day or self._segment.size >= SEGMENT_BYTES:
            self._open(day, entries[0].time)
        self._append(entries)

    def close(self) -> None:
        """Sync and close the file."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()

    def _open(self, day: str, now: datetime) -> None:
        self.close()
        self._secret = self._secret or load_secret(self._secret_folder / SECRET, create=True)
        previous = heads(self._folder)
        self._segment = Segment(self._folder)
        self._day, self._number, self._mac = day, 0, first_mac(self._secret, self._segment.path.name)
        self._append([Entry(time=now, action=OPENED, detail=f"process {os.getpid()}", heads=previous)])

    def _append(self, entries: Sequence[Entry]) -> None:
        mac = self._mac
        lines: list[bytes] = []
        for number, entry in enumerate(entries, self._number):
            entry.number = number
            payload = _encode(entry)
            mac = next_mac(self._secret, mac, payload)
            lines += (payload[:-1], _SEAL, mac.hex().encode(), b'"}\n')
        assert self._segment is not None
        try:
            self._segment.write(b"".join(lines))
        except OSError:
            self.close()  # nobody knows what of the lines is there: the next entry starts a file
            raise
        self._mac = mac
        self._number += len(entries)


def record_event(folder: Path, secret_folder: Path, action: str, detail: str, *, by: str | None = None) -> None:
    """Record what was done other than by a request; by the user of this process when `by` is None."""
    log = AuditLog(folder, secret_folder)
    try:
        log.record(Entry(time=datetime.now(UTC), action=action, name=by or getpass.getuser(), detail=detail))
    finally:
        log.close()


def first_mac(secret: bytes, file: str) -> bytes:
    """What the first line of a file builds on, so that it cannot stand in another."""
    return next_mac(secret, b"", file.encode())


def next_mac(secret: bytes, before: bytes, payload: bytes) -> bytes:
    """HMAC of a line: the first half of HMAC-SHA-256 over the one before and what the line says."""
    return hmac.digest(secret, before + payload, "sha256")[:16]


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """What a line says, and its HMAC (raises ValueError)."""
    seal = line[-_SEAL_BYTES:]
    if not (seal.startswith(_SEAL) and seal.endswith(b'"}')):
        raise ValueError("the line has no HMAC at its end")
    return line[:-_SEAL_BYTES] + b"}", bytes.fromhex(seal[len(_SEAL) : -2].decode("latin-1"))


def heads(folder: Path) -> Heads:
    """How far the newest files of a folder have come."""
    ends: Heads = {}
    for path in sorted(folder.glob(f"*{SUFFIX}"))[-_HEADS:]:
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                last = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
            payload, mac = split_line(last)
            ends[path.name] = (msgspec.json.decode(payload, type=Entry).number + 1, mac.hex())
        except (FileNotFoundError, ValueError):  # taken up meanwhile, or without a whole line yet
            continue
    return ends
