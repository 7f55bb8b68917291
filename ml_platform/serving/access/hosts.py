"""Checks the Host header against the names of this server, which stops DNS rebinding.

A browser lets a page of `evil.example` talk to `evil.example` only, so an attacker makes that name resolve to
127.0.0.1. Such a request still names the foreign host in its Host header, and is refused.
"""

import re
from collections.abc import Iterable

from starlette.types import Scope

from ml_platform.serving.host_names import ANY, is_address
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.request_context import RequestContext

SETTING = "ML_PLATFORM_SERVING_ALLOWED_HOSTS"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_KNOWN = 1000  # spellings of good names that are remembered
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]@/\s]+))(?::\d{1,5})?")


class Hosts:
    """The names that a server answers to: the loopback's, the address of the connection, and those given.

    Parameters
    ----------
    names
        Host names or addresses without port; `*.example.com` for all below a name, `*` for any.

    Examples
    --------
    >>> hosts = Hosts(["ml.example.com"])
    >>> hosts.answers(b"ml.example.com:8000", None), hosts.answers(b"evil.example", None)
    (True, False)
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        given = {name.lower() for name in names}
        self.any = ANY in given
        self._names = given | _LOOPBACK
        self._below = tuple(name[1:] for name in given if name.startswith("*."))
        self._good: set[bytes] = set()

    def check(self, scope: Scope) -> None:
        """Refuse a request whose Host header is not a name of this server.

        Raises
        ------
        Refused
            421 for another name, 400 for none: HTTP/1.1 requires one.
        """
        if self.any:
            return
        host = RequestContext.of(scope).host
        if host is None:
            if scope["http_version"] != "1.0":
                raise Refused(400, "no_host", "the request has no Host header", close=True)
        elif host not in self._good and not self.answers(host, scope.get("server")):
            message = "this server does not answer to that Host; where it should, name it in " + SETTING
            raise Refused(421, "misdirected", message, close=True)

    def answers(self, host: bytes, server: tuple[str, int | None] | None) -> bool:
        """Whether a Host header's value names this server; `server` is its address of the connection."""
        match = _HOST.fullmatch(host.decode("latin-1"))
        if match is None:
            return False
        name = (match[1] or match[2]).lower().rstrip(".")
        bound = server is not None and name == server[0].lower() and is_address(name)
        if not (bound or name in self._names or name.endswith(self._below)):
            return False
        if len(self._good) < _KNOWN:
            self._good.add(host)
        return True
