"""The options in a prediction's query string, read by one function for the route and for the check of roles."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.problems import Problem

OPTIONS = ("explain", "features")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def read_options(query: bytes) -> Mapping[str, bool]:
    """Read the options; of one that is given twice, the last value counts.

    Raises
    ------
    Refused
        422 for an unknown option, or a value that is neither true nor false.

    Examples
    --------
    >>> read_options(b"explain=True&features=false")
    {'explain': True, 'features': False}
    """
    options: dict[str, bool] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in OPTIONS or value.lower() not in _TRUTH:
            problem = Problem(None, name[:40], f"wanted {' or '.join(OPTIONS)} in the query, each true or false")
            raise Refused(422, "invalid_request", str(problem), [problem])
        options[name] = _TRUTH[value.lower()]
    return options


def wants_details(query: bytes) -> bool:
    """Whether a prediction asks for an explanation or for feature values; False for a query that is refused.

    Examples
    --------
    >>> wants_details(b"explain=false&features=false"), wants_details(b"%65xplain=1")
    (False, True)
    """
    try:
        return any(read_options(query).values())
    except Refused:
        return False
