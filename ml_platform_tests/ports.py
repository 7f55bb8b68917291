"""Ports of the loopback for servers that tests start and that cannot choose one for themselves."""

import secrets
import socket
from contextlib import suppress
from pathlib import Path

_HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nothing uses, below those that the system hands out.

    One of these could be taken again before its server listens, by whoever connects or asks for any port meanwhile.
    """
    end = int(_HANDED_OUT.read_text().split()[0]) if _HANDED_OUT.exists() else 32_768
    for _ in range(100):
        port = 10_000 + secrets.randbelow(max(end, 20_000) - 10_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port of the loopback was found in 100 tries")
