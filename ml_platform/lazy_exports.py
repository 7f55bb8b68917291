"""What a package exports without importing the modules it is in, so that importing the package stays light."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions `__getattr__` and `__dir__` of a package.

    A module is imported when one of its names is first used. For type checkers the package imports the same names
    under `TYPE_CHECKING`.

    Parameters
    ----------
    package
        The package's `__name__`.
    modules
        Names to export by the module, relative to the package, that defines them.

    Examples
    --------
    >>> get, names = lazy_exports("xml", {"sax.handler": ["ContentHandler"]})
    >>> get("ContentHandler").__module__
    'xml.sax.handler'
    >>> get("Missing")
    Traceback (most recent call last):
    AttributeError: module 'xml' has no attribute 'Missing'
    """
    homes = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *homes})

    return get, names
