"""What has become of bytes that were written to a socket."""

import socket
import time
from pathlib import Path


def wait_until_read(connection: socket.socket) -> None:
    """Wait until the other end, a process of this machine, has read all that was sent so far."""
    ports = connection.getsockname()[1], connection.getpeername()[1]
    deadline = time.monotonic() + 60
    while _unread(*ports):
        assert time.monotonic() < deadline, "the server does not read what it is sent"
        time.sleep(0.005)


def _unread(here: int, there: int) -> int:
    """Bytes that wait in the system to be sent by one port, or to be read by the other."""
    waiting = 0
    for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:]):
        ports = tuple(int(address.rpartition(":")[2], 16) for address in fields[1:3])
        to_send, to_read = (int(queue, 16) for queue in fields[4].split(":"))
        waiting += to_send * (ports == (here, there)) + to_read * (ports == (there, here))
    return waiting
