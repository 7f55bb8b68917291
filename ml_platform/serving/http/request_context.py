"""What the server knows of one request: its headers, who sent it, and how it was answered."""

import re
from typing import Any, Protocol

from starlette.types import Message, Scope, Send

from ml_platform.serving.http.messages import DRAINED_BYTES, MAX_BODY_BYTES, Refused, new_request_id, too_large
from ml_platform.serving.http.problems import Problem
from ml_platform.serving.stage_timer import StageTimer

ENCODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})  # of bodies, see `ml_platform.serving.http.compression`

_KEY = "ml_platform.request"  # in the scope
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Caller(Protocol):
    """Whoever a key or a token stands for, and what they may do."""

    @property
    def id(self) -> str:
        """Names the key or token in the audit log."""

    @property
    def name(self) -> str:
        """Names the caller in logs and answers."""

    @property
    def rate(self) -> float | None:
        """Requests per second; the server's own limit when None."""

    @property
    def burst(self) -> int | None:
        """Requests at once within that rate."""

    def has_role(self, role: str) -> bool:
        """Whether the caller has a role for any model."""

    def covers(self, model: str) -> bool:
        """Whether the caller has any role for a model ("*": for all)."""

    def may(self, role: str, model: str) -> bool:
        """Whether the caller has a role for a model."""


class RequestContext:
    """Headers that the server uses, read in one pass, and what its parts tell one another of the request.

    When a header appears twice, the last one counts; of `host` and of `credentials` (the headers that may hold a key)
    the first.

    Attributes
    ----------
    request_id
        The client's `X-Request-ID` where it is valid, else a random one.
    client
        Address of the sender.
    is_keyed
        Whether the request must come with a key or token.
    key
        The key or token that it came with, once that is checked.
    keys_error
        Why keys could not be checked.
    stages
        Timings of the request; None when they are not recorded.
    model_version
        Version that answered, where stages are recorded.
    answered
        What `Predictor.note` counts once the answer is encoded: model, answer, options.
    rows
        How many rows were predicted, looked up or pushed; 0 for none.
    status
        Of the answer; 0 before there is one.
    """

    __slots__ = (
        "answered",
        "client",
        "content_length",
        "credentials",
        "encoding",
        "host",
        "is_forwarded",
        "is_keyed",
        "key",
        "keys_error",
        "model_version",
        "origin",
        "request_id",
        "rows",
        "sent_id",
        "stages",
        "status",
    )

    def __init__(self, scope: Scope) -> None:
        sent = host = None
        credentials: tuple[tuple[bytes, bytes], ...] = ()
        self.content_length = 0
        self.encoding = b""
        self.origin: bytes | None = None  # of the page that sent it, when a browser did
        self.is_forwarded = False  # by a proxy, which names the client's address
        for header in scope["headers"]:
            name, value = header
            if name == b"host":
                host = value if host is None else host
            elif name == b"content-length":
                self.content_length = int(value) if value.isdigit() else 0
            elif name == b"authorization" or name == b"x-api-key":  # noqa: PLR1714 - it takes half the time of `in`
                credentials += (header,)
            elif name == b"x-request-id":
                sent = value.decode("latin-1")
            elif name == b"content-encoding":
                self.encoding = b"" if (named := value.strip().lower()) == b"identity" else named
            elif name == b"origin":
                self.origin = value
            elif name.startswith(b"x-forwarded-"):
                self.is_forwarded = True
        self.host = host
        self.credentials = credentials
        self.sent_id = sent
        self.request_id = sent if sent is not None and _REQUEST_ID.fullmatch(sent) else new_request_id()
        client = scope.get("client")
        self.client: str | None = client[0] if client else None
        self.is_keyed = False
        self.key: Caller | None = None
        self.keys_error: Exception | None = None
        self.stages: StageTimer | None = None
        self.model_version: int | None = None
        self.answered: tuple[str, Any, Any] | None = None
        self.rows = 0
        self.status = 0

    @classmethod
    def of(cls, scope: Scope) -> "RequestContext":
        """The context of a request, made when it is asked for first."""
        context: RequestContext | None = scope.get(_KEY)
        if context is None:
            context = scope[_KEY] = cls(scope)
        return context

    @staticmethod
    def forget(scope: Scope) -> None:
        """Let the context be made anew: a proxy's headers will give the request another address."""
        del scope[_KEY]

    @property
    def caller(self) -> str | None:
        """Who sent the request: the name of the key or token, else the address."""
        return self.client if self.key is None else self.key.name

    def covers(self, model: str) -> bool:
        """Whether the caller may see a model."""
        return self.key is None or self.key.covers(model)

    def may(self, role: str, model: str) -> bool:
        """Whether the caller has a role for a model; whoever needs no key has."""
        return self.key is None or self.key.may(role, model)

    def check(self) -> None:
        """Refuse a request whose body must not be read (raises Refused)."""
        if self.sent_id is not None and self.sent_id != self.request_id:
            problem = Problem(None, "X-Request-ID", "wanted 1 to 128 letters, digits or any of . _ : / + = -")
            raise Refused(422, "invalid_request", str(problem), [problem])
        if self.encoding and self.encoding not in ENCODINGS:
            message = "of the values of Content-Encoding, gzip and deflate are supported"
            raise Refused(415, "unsupported_encoding", message, close=True)
        if self.content_length > MAX_BODY_BYTES:
            raise too_large(drain=self.content_length <= DRAINED_BYTES)


def record_status(scope: Scope, send: Send) -> Send:
    """Wrap `send` so that the answer's status is kept, for audit log, request log and traces."""
    context = RequestContext.of(scope)

    async def recording(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.status = message["status"]
        await send(message)

    return recording
