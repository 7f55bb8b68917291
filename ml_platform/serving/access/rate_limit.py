"""Rate limits: a token bucket for every key, token or address, in one table that all workers share.

The generic cell rate algorithm (ITU-T I.371) keeps one number per bucket: the instant at which it is full again. A full
bucket needs no entry, so a table of fixed size serves any number of addresses; when it has no free slot, the fullest
bucket is forgotten.
"""

import hashlib
import ipaddress
import math
import mmap
import os
import secrets
import time
from pathlib import Path

from starlette.types import Scope

from ml_platform.serving.access.authorization import PROBES
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import SHARED_FOLDER

_FILE = "rates"
_SLOTS = 2**16
_PROBED = 8  # slots in which a caller's bucket may be
_SALT_BYTES = 16  # of the hash, so that nobody can choose a name that collides with another caller's
_TABLE_BYTES = _SALT_BYTES + 16 * _SLOTS


class Buckets:
    """Token buckets by name.

    Two workers that serve one caller in the same microsecond may both take the last request: there is no lock.

    Parameters
    ----------
    path
        A file of `create_table`, for the processes that share it; None for this process alone.

    Examples
    --------
    >>> buckets = Buckets()
    >>> [buckets.take("job", rate=10.0, burst=2, now=0.0) for _ in range(3)], buckets.take("job", 10.0, 2, now=0.1)
    ([0.0, 0.0, 0.1], 0.0)
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._map = mmap.mmap(-1, _TABLE_BYTES)
            self._map[:_SALT_BYTES] = secrets.token_bytes(_SALT_BYTES)
        else:
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), _TABLE_BYTES)
        self._salt = self._map[:_SALT_BYTES]
        table = memoryview(self._map)[_SALT_BYTES:]
        self._names = table[: 8 * _SLOTS].cast("Q")
        self._full_at = table[8 * _SLOTS :].cast("d")

    def take(self, name: str, rate: float, burst: int, now: float | None = None) -> float:
        """Take one token out of a bucket that gets `rate` per second and holds `burst`.

        Returns
        -------
        float
            0 when there was a token, else the seconds until there is one.
        """
        now = time.monotonic() if now is None else now  # counts from the machine's start, so workers agree on it
        tag = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=self._salt).digest(), "little") or 1
        slot = self._slot(tag)
        full_at = max(now, self._full_at[slot]) if self._names[slot] == tag else now
        wait = full_at - now - (burst - 1) / rate
        if wait > 1e-9:
            return wait
        self._names[slot] = tag
        self._full_at[slot] = full_at + 1 / rate
        return 0.0

    def _slot(self, tag: int) -> int:
        fullest, soonest = 0, math.inf
        for step in range(_PROBED):
            slot = (tag + step) % _SLOTS
            if self._names[slot] == tag:
                return slot
            if self._full_at[slot] < soonest:
                fullest, soonest = slot, self._full_at[slot]
        return fullest


class Limits:
    """Refuses requests above the rate of their caller. One per worker."""

    def __init__(self, settings: ServingSettings, table: Path | None = None) -> None:
        self._rate = settings.rate
        self._burst = settings.burst
        self._table = table
        self._buckets: Buckets | None = None

    def check(self, scope: Scope) -> None:
        """Count a request against its key or token, or its address when it has none (raises Refused, 429)."""
        caller = RequestContext.of(scope).key
        rate, burst = self._rate, self._burst
        if caller is not None and caller.rate is not None:
            rate, burst = caller.rate, caller.burst
        if rate is None or scope["path"] in PROBES:
            return
        if self._buckets is None:
            self._buckets = Buckets(self._table)
        name = caller.id if caller is not None else _network(scope)
        wait = self._buckets.take(name, rate, burst or max(1, math.ceil(rate)))
        if wait:
            message = f"more than {rate:g} requests per second: try again in {math.ceil(wait)} s"
            raise Refused(429, "rate_limited", message, retry_after=math.ceil(wait))


def create_table(folder: Path) -> None:
    """Make the file of the buckets in the folder that workers share, unless it exists."""
    path = folder / _FILE
    if not path.exists():
        path.write_bytes(secrets.token_bytes(_SALT_BYTES).ljust(_TABLE_BYTES, b"\0"))


def shared_table() -> Path | None:
    """The file that the workers of this server share; None where there is one worker."""
    folder = os.environ.get(SHARED_FOLDER)
    return path if folder and (path := Path(folder) / _FILE).exists() else None


def _network(scope: Scope) -> str:
    """Name of the bucket of an address; one per /64 of IPv6, which is usually a single customer's."""
    host = RequestContext.of(scope).client or ""
    if ":" not in host:
        return f"address {host}"
    try:
        return f"address {ipaddress.IPv6Network((host.partition('%')[0], 64), strict=False)}"
    except ValueError:
        return f"address {host}"
