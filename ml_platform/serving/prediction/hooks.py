"""Functions of a project that change a model's rows before they are scored, or its predictions before they are sent."""

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.validation_errors import parse
from ml_platform.serving.prediction.responses import Prediction

logger = logging.getLogger("serving")


class HookRequest(msgspec.Struct, frozen=True):
    """The request that a hook works for."""

    model: str
    request_id: str
    caller: str | None  # name of the key, else the address


Row = dict[str, Any]
BeforeHook = Callable[[list[Row], HookRequest], list[Row]]
AfterHook = Callable[[list[Prediction], HookRequest], list[Prediction]]


class Hooks:
    """The hooks of a project's models, at most one of each kind per model.

    They run for every protocol, where the rows are scored: for a small request on the event loop, so they must not wait
    for anything. A hook that raises ValueError refuses the request with its message (422); whatever else it raises, or
    returning something else than its type says, is answered 500 and logged. Nothing is logged as predicted then.

    Examples
    --------
    >>> hooks = Hooks()
    >>> @hooks.before("flight_delay")
    ... def upper_case(rows: list[Row], request: HookRequest) -> list[Row]:
    ...     return [{**row, "carrier": row["carrier"].upper()} for row in rows]
    >>> hooks.prepare(b'{"carrier": "ua"}', HookRequest("flight_delay", "7", None))
    b'{"carrier":"UA"}'
    """

    def __init__(self) -> None:
        self._before: dict[str, BeforeHook] = {}
        self._after: dict[str, AfterHook] = {}

    @property
    def models(self) -> frozenset[str]:
        """Names of the models that have hooks."""
        return frozenset((*self._before, *self._after))

    def before(self, model: str) -> Callable[[BeforeHook], BeforeHook]:
        """Decorate the function that gets a request's rows as they were sent, and returns as many to be scored."""
        return self._adder(self._before, model)

    def after(self, model: str) -> Callable[[AfterHook], AfterHook]:
        """Decorate the function that gets a request's predictions, and returns as many to be sent."""
        return self._adder(self._after, model)

    def prepare(self, body: bytes, request: HookRequest) -> bytes:
        """Pass the rows of a body through the model's hook (raises InvalidRequest, Refused)."""
        hook = self._before.get(request.model)
        if hook is None:
            return body
        document = parse(body)
        is_many = isinstance(document, dict) and set(document) == {"rows"} and isinstance(document["rows"], list)
        rows = document["rows"] if is_many else [document]
        if not all(isinstance(row, dict) for row in rows):
            return body  # the decoder refuses it, and names the row
        number = len(rows)
        try:
            changed = hook(rows, request)
            self._check(changed, dict, number)
            return encode({"rows": changed} if is_many else changed[0])
        except InvalidRequest:
            raise
        except ValueError as error:
            raise InvalidRequest(422, [Problem(None, None, str(error))]) from error
        except Exception as error:
            raise _failed(hook, request, error) from error

    def finish(self, predictions: list[Prediction], request: HookRequest) -> list[Prediction]:
        """Pass predictions through the model's hook (raises Refused)."""
        hook = self._after.get(request.model)
        if hook is None:
            return predictions
        number = len(predictions)
        try:
            changed = hook(predictions, request)
            self._check(changed, Prediction, number)
            encode(changed)  # what cannot be sent is found before it is logged as predicted
        except Exception as error:
            raise _failed(hook, request, error) from error
        return changed

    @staticmethod
    def _adder(hooks: dict[str, Any], model: str) -> Callable[[Any], Any]:
        def add(function: Any) -> Any:
            if model in hooks:
                raise ValueError(f"'{model}' has the hook `{hooks[model].__name__}` already: call one from the other")
            hooks[model] = function
            return function

        return add

    @staticmethod
    def _check(returned: Any, kind: type, number: int) -> None:
        if not isinstance(returned, list) or not all(isinstance(one, kind) for one in returned):
            raise TypeError(f"wanted a list of {kind.__name__}, found {returned!r:.200}")
        if len(returned) != number:
            raise TypeError(f"wanted {number} of {kind.__name__}, one for each row, found {len(returned)}")


def _failed(hook: Callable[..., Any], request: HookRequest, error: Exception) -> Refused:
    """Log why a hook failed, and make the answer, which does not tell: the reason is the server's, not the client's."""
    name = getattr(hook, "__name__", "hook")
    logger.error("%s: hook `%s` failed, request %s", request.model, name, request.request_id, exc_info=error)
    return Refused(
        500, "hook_failed", f"the hook `{name}` of '{request.model}' failed; the server's log has the reason"
    )
