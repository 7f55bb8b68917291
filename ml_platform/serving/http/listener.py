"""Opens the socket that a server listens on; its errors say what to do."""

import errno
import socket


class CannotListen(Exception):
    """The server cannot listen on an address; the message says why, and what to do."""


def listen(host: str, port: int, choice: str) -> socket.socket:
    """Listen on an address; a port of 0 takes a free one.

    Parameters
    ----------
    choice
        The option by which the port is chosen, for messages.

    Raises
    ------
    CannotListen
        When the port is taken or not permitted.

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
