"""Names of hosts: in settings, in addresses, and whether one is an address."""

import ipaddress
import re
from urllib.parse import urlsplit

ANY = "*"


_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?|\*")


def checked_names(text: str) -> tuple[str, ...]:
    """Split a comma-separated setting into host names (raises ValueError).

    Examples
    --------
    >>> checked_names("ml.example.com, *.internal")
    ('ml.example.com', '*.internal')
    """
    names = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for name in names:
        if _NAME.fullmatch(name) is None and not is_address(name):
            raise ValueError(f"wanted host names without scheme and port, such as ml.example.com, found '{name}'")
    return names


def host_of(url: str) -> str | None:
    """The host that a URL names."""
    return urlsplit(url).hostname


def is_address(name: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
