"""`POST /features/{view}/lookup`: the newest values of a view or a service for a batch of keys."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from time import perf_counter
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ml_platform.instants import FIRST_YEAR, LAST_YEAR, read_instant
from ml_platform.registry.input_contract import TYPES
from ml_platform.serving.feature_serving.responses import answer_of
from ml_platform.serving.feature_serving.service import FeatureServing
from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.http.problems import Problem
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.prediction.route_adapter import RouteAdapter, own_error

_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_FORMATS = {"rows": False, "columns": True}


class LookupOptions(NamedTuple):
    """What the query string asks for."""

    by_column: bool = False
    request_features: bool = False
    as_of: datetime | None = None


def lookup_routes(adapter: RouteAdapter, features: FeatureServing) -> list[BaseRoute]:
    """Build the route."""

    def count(request: Request, status: int) -> None:
        features.count_request(request.path_params["view"], status)

    @adapter.shaped(own_error, count)
    async def lookup(request: Request) -> Response:
        context = RequestContext.of(request.scope)
        context.check()
        options = read_lookup_options(request.scope["query_string"])
        name = request.path_params["view"]
        body = await adapter.body(request)

        def work() -> bytes:
            started = perf_counter()
            found = features.find(name, body, caller=context.key, derived=options.request_features, as_of=options.as_of)
            content = encode(answer_of(found, context.request_id, by_column=options.by_column))
            features.count(found, perf_counter() - started)
            context.rows = len(found.rows)
            return content

        return Response(await features.in_turn(len(body), work), media_type="application/json")

    return [Route("/features/{view}/lookup", lookup, methods=["POST"], include_in_schema=False)]


@lru_cache(maxsize=256)
def read_lookup_options(query: bytes) -> LookupOptions:
    """Read the options; of one that is given twice, the last value counts (raises Refused).

    Examples
    --------
    >>> read_lookup_options(b"format=columns&request_features=true")
    LookupOptions(by_column=True, request_features=True, as_of=None)
    """
    options: Mapping[str, str] = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    as_of = None
    for name, value in options.items():
        allowed = {"format": _FORMATS, "request_features": _TRUTH}.get(name)
        if name == "as_of":
            as_of = _instant(value)
        elif allowed is None or value not in allowed:
            wanted = "wanted `format`, rows or columns, `request_features`, true or false, or `as_of`, an instant"
            raise _invalid(name, f"{wanted}; found {value[:40]!r}")
    return LookupOptions(
        _FORMATS[options.get("format", "rows")], _TRUTH[options.get("request_features", "false")], as_of
    )


def _instant(text: str) -> datetime:
    try:
        instant = read_instant(text.replace(" ", "+"))  # a + that was not escaped arrives as a blank
        if not FIRST_YEAR <= instant.year <= LAST_YEAR:
            raise ValueError(f"wanted a year from {FIRST_YEAR} to {LAST_YEAR}")
    except ValueError as error:
        raise _invalid("as_of", f"wanted {TYPES['timestamp']}, found {text[:40]!r}: {error}") from error
    return instant.astimezone(UTC)


def _invalid(name: str, message: str) -> Refused:
    problem = Problem(None, name[:40], message)
    return Refused(422, "invalid_request", str(problem), [problem])
