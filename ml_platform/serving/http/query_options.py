"""The options in a prediction's query string, read by one function for the route and for the check of roles."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from ml_platform.inference.intervals import HIGHEST, LOWEST
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.problems import Problem

DETAILS = ("explain", "features")
INTERVAL = "interval"
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@lru_cache(maxsize=256)  # clients ask for the same again and again
def read_options(query: bytes) -> Mapping[str, Any]:
    """Read the options; of one that is given twice, the last value counts.

    Raises
    ------
    Refused
        422 for an unknown option, a level that no interval can have, or a value that is neither true nor false.

    Examples
    --------
    >>> read_options(b"explain=True&features=false&interval=0.9")
    {'explain': True, 'features': False, 'interval': 0.9}
    """
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == INTERVAL:
            options[name] = read_level(value)
        elif name not in DETAILS or value.lower() not in _TRUTH:
            problem = Problem(
                None,
                name[:40],
                f"wanted {' or '.join(DETAILS)} in the query, each true or false, or {INTERVAL}, a level as 0.9",
            )
            raise Refused(422, "invalid_request", str(problem), [problem])
        else:
            options[name] = _TRUTH[value.lower()]
    return options


def read_level(value: object) -> float:
    """Read the level of an interval, a number or its text.

    Raises
    ------
    Refused
        422 for any other value, or a level that is not from 0.5 to 0.99.

    Examples
    --------
    >>> read_level("0.9"), read_level(0.5)
    (0.9, 0.5)
    """
    try:
        level = float("nan") if isinstance(value, bool) or not isinstance(value, str | int | float) else float(value)
    except ValueError:
        level = float("nan")
    if isinstance(value, str) and not value.isascii():  # Python reads the digits of every script, others do not
        level = float("nan")
    if not LOWEST <= level <= HIGHEST:
        problem = Problem(None, INTERVAL, f"wanted a level from {LOWEST:g} to {HIGHEST:g}, found {str(value)[:40]}")
        raise Refused(422, "invalid_request", str(problem), [problem])
    return level


def wants_details(query: bytes) -> bool:
    """Whether a prediction asks for an explanation or for feature values; False for a query that is refused.

    Examples
    --------
    >>> wants_details(b"explain=false&interval=0.9"), wants_details(b"%65xplain=1")
    (False, True)
    """
    try:
        options = read_options(query)
    except Refused:
        return False
    return bool(options.get("explain") or options.get("features"))
