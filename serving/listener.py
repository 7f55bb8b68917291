"""The socket that a server listens on, and what to do where there can be none."""

import errno
import socket


class CannotListen(Exception):
    """Says why, and what to do about it."""


def listen(host: str, port: int, choice: str) -> socket.socket:
    """Listen on an address; a port of 0 takes a free one.

    Parameters
    ----------
    choice
        Where whoever runs the server chooses the port.

    Raises
    ------
    CannotListen
        When the port is taken or not to be had.

    Examples
    --------
    >>> with listen("127.0.0.1", 0, "--port") as listener:
    ...     listener.getsockname()[0]
    '127.0.0.1'
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise CannotListen(_reason(host, port, error, choice)) from error
    return listener


def _reason(host: str, port: int, error: OSError, choice: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another process; stop it, or choose another with {choice}"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this process has; choose one above 1023 with {choice}"
    return f"cannot listen on {host}:{port}: {error.strerror}"
