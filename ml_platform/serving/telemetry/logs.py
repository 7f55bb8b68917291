"""The server's log on stderr: lines of text, or of JSON for a collector; never the content of requests or answers."""

import logging
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Literal

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.logging import DefaultFormatter

from ml_platform.printable import plain
from ml_platform.serving.http.request_context import RequestContext

LogFormat = Literal["text", "json"]
LOGGED = {"failed": 500, "refused": 400, "all": 0}  # which requests: those with at least this status
SETTING = "ML_PLATFORM_SERVING_LOGGED_REQUESTS"

logger = logging.getLogger("serving.requests")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; `extra={"fields": {…}}` adds fields beside the message.

    Examples
    --------
    >>> record = logging.LogRecord("serving", logging.ERROR, "", 0, "%s is refused", ("revision 2",), None)
    >>> msgspec.json.decode(JsonFormatter().format(record))["message"]
    'revision 2 is refused'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextFormatter(DefaultFormatter):
    """Formats a record as one line; those of a traceback are indented, so that no text can pass for another record.

    Examples
    --------
    >>> record = logging.LogRecord("serving", logging.ERROR, "", 0, "%s", ("ann\\nERROR: forged",), None)
    >>> TextFormatter("%(levelname)s: %(message)s", use_colors=False).format(record)
    'ERROR: ann\\\\nERROR: forged'
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Write the line."""
        record.message = plain(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Write a traceback."""
        return "\n".join(f"    {plain(line)}" for line in super().formatException(ei).split("\n"))


def log_config(log_format: LogFormat, level: str) -> dict[str, Any]:
    """Make the configuration of `logging` for the server's own loggers and uvicorn's."""
    formatters = {
        "text": {
            "()": "ml_platform.serving.telemetry.logs.TextFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "json": {"()": "ml_platform.serving.telemetry.logs.JsonFormatter"},
    }
    to_stderr = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"chosen": formatters[log_format]},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "chosen", "stream": "ext://sys.stderr"}},
        "loggers": {"uvicorn": to_stderr, "uvicorn.error": {"level": level.upper()}, "serving": to_stderr},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }


class RequestLog:
    """Wraps the whole app and logs requests whose status is at least `least`: id, model, caller, status, duration."""

    def __init__(self, app: ASGIApp, least: int) -> None:
        self._app = app
        self._least = least

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        path = scope["path"][:500]
        try:
            await self._app(scope, receive, send)
        finally:
            status = RequestContext.of(scope).status
            if status >= self._least:
                self._write(scope, path, status, perf_counter() - started)

    def _write(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        context = RequestContext.of(scope)
        fields = {
            "request_id": context.request_id,
            "model": scope.get("path_params", {}).get("model"),
            "caller": context.caller,
            "method": scope["method"],
            "path": path,
            "status": status,
            "duration_ms": round(1000 * seconds, 3),
        }
        level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
        words = (scope["method"], path, status, 1000 * seconds, fields["request_id"])
        logger.log(level, "%s %s %d in %.1f ms, request %s", *words, extra={"fields": fields})
