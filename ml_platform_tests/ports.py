"""Ports of the loopback for servers that tests start and that cannot choose one for themselves."""

import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path

_HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Each of pytest's workers draws from ports of its own, and none twice: a server takes seconds until it listens.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_drawn: set[int] = set()


def free_port() -> int:
    """A port that nothing uses, below those that the system hands out.

    One of these could be taken again before its server listens, by whoever connects or asks for any port meanwhile.
    """
    end = int(_HANDED_OUT.read_text().split()[0]) if _HANDED_OUT.exists() else 32_768
    for _ in range(100):
        port = 10_000 + _WORKERS * secrets.randbelow((max(end, 20_000) - 10_000) // _WORKERS) + _WORKER
        if port in _drawn:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _drawn.add(port)
            return port
    raise OSError("no free port of the loopback was found in 100 tries")
