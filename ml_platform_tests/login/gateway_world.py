"""A gateway on the loopback with accounts, before three servers that note what reaches them."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from ml_platform.gateway_identity import GatewaySigner
from ml_platform.login.accounts import AccountStore
from ml_platform.login.gateway import Gateway
from ml_platform.login.proxy import Upstream
from ml_platform.login.request_checks import Site
from ml_platform.login.settings import LoginSettings
from ml_platform.settings import Settings

PASSWORD = "correct horse battery"
PEOPLE = ("viewer", "launcher", "editor", "admin")
JSON = {"content-type": "application/json"}


@dataclass
class Behind:
    """A server behind the gateway: what came, and an answer for it."""

    name: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)  # path → (status, headers, chunks)
    port: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.requests.append(
            {
                "method": scope["method"],
                "path": scope["raw_path"].decode(),
                "query": scope["query_string"].decode(),
                "headers": [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]],
                "body": body,
            }
        )
        status, headers, chunks = self.answers.get(scope["path"], (200, [(b"content-type", b"text/plain")], [b"here"]))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if callable(chunks):
            await chunks(send)
            return
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "graphql-ws"})
        while (message := await receive())["type"] == "websocket.receive":
            self.requests.append({"websocket": message["text"]})
            await send({"type": "websocket.send", "text": json.dumps({"got": json.loads(message["text"])["type"]})})

    def last(self) -> dict[str, Any]:
        return self.requests[-1]


@dataclass
class World:
    """The gateway, what is behind it, and how one signs in."""

    settings: Settings
    port: int
    behind: dict[str, Behind]
    accounts: AccountStore
    gateway: Gateway

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, name: str | None = None, **options: Any) -> httpx.Client:
        """A browser's client, signed in as somebody; it says from which page it sends, as browsers do."""
        client = httpx.Client(base_url=self.url, trust_env=False, timeout=60, headers={"origin": self.url}, **options)
        if name is not None:
            self.sign_in(client, name)
        return client

    def sign_in(self, client: httpx.Client, name: str, password: str = PASSWORD, next_: str = "") -> httpx.Response:
        page = client.get("/-/login", params={"next": next_} if next_ else None)
        token = re.search(r'name="form" value="([^"]+)"', page.text)
        assert token is not None, page.text
        return client.post(
            "/-/login",
            params={"next": next_} if next_ else None,
            data={"form": token[1], "name": name, "password": password},
        )

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log, in the order of time."""
        lines = [
            json.loads(line)
            for path in self.settings.audit_dir.glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        return sorted((line for line in lines if line["action"] != "opened"), key=lambda line: line["time"])

    def arrived(self) -> int:
        """How many requests have come through."""
        return sum(len(server.requests) for server in self.behind.values())


@contextmanager
def served(app: Any, listener: socket.socket | None = None) -> Iterator[int]:
    """Serve an ASGI app on a free port in a thread."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="error", lifespan="on" if isinstance(app, Gateway) else "off", ws="websockets-sansio",
        timeout_graceful_shutdown=1, proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@contextmanager
def world(home: Path, **login: Any) -> Iterator[World]:
    """A gateway with an account of each role, until the block ends."""
    settings = Settings(home=home)
    accounts = AccountStore(settings)
    for name in PEOPLE:
        accounts.add(name, PASSWORD, roles=[name], groups=["analysts"] if name == "viewer" else [])
    with ExitStack() as stack:
        behind = {name: Behind(name) for name in ("dagster", "mlflow", "console")}
        for server in behind.values():
            server.port = stack.enter_context(served(server))
        upstreams = {
            name: Upstream(name, f"http://127.0.0.1:{server.port}", "/mlflow" if name == "mlflow" else "")
            for name, server in behind.items()
        }
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        options = LoginSettings(**login)
        signer = GatewaySigner(settings.keys_dir, create=True)
        site = Site.of(options.url or f"http://127.0.0.1:{port}", port)
        gateway = Gateway(settings, options, site, upstreams, signer)
        stack.enter_context(served(gateway, listener))
        yield World(settings, port, behind, accounts, gateway)
