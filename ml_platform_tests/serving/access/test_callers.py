"""Every route with every key and token: none, wrong, ended, of each role, of another model; and what the audit has."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Mount

from ml_platform.governance.keys import RELOAD_SECONDS, ROLES, KeyStore
from ml_platform.settings import Settings
from ml_platform_tests.ports import free_port
from ml_platform_tests.serving.conftest import Server, answering, start_server
from ml_platform_tests.serving.issuing import configure, jwk, token
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish
from serving.access.callers import Access
from serving.app import create_app
from serving.wire import Refused

ROOT = Path(__file__).parents[3]
# What each route takes: a role, for the model that the path names, for all of them, or for whichever ("any", where a
# list shows what is covered). None for the probes. A route that is not here fails the walk.
NEEDS: dict[str, tuple[str, str] | None] = {
    **dict.fromkeys(["GET /health/live", "GET /health/ready", "GET /health", "GET /ping"]),
    **dict.fromkeys(["GET /v2/health/live", "GET /v2/health/ready"]),
    **dict.fromkeys(["GET /", "GET /metrics", "GET /openapi.json"], ("predict", "all")),
    **dict.fromkeys(["GET /docs", "GET /docs/assets", "GET /assets"], ("predict", "any")),
    **dict.fromkeys(["GET /models", "GET /version", "GET /v2"], ("predict", "any")),
    "GET /models/{model}": ("predict", "model"),
    "GET /models/{model}/console": ("predict", "model"),
    "POST /predict/{model}": ("predict", "model"),
    "POST /predict/{model}/versions/{version}": ("predict", "model"),
    "POST /features/{view}": ("push", "all"),
    "GET /endpoints/{model}": ("predict", "model"),
    "PUT /endpoints/{model}": ("promote", "model"),
    "DELETE /endpoints/{model}": ("promote", "model"),
    # MLflow
    "POST /invocations": ("predict", "model"),  # the root speaks of the one model that there is
    "POST /models/{model}/invocations": ("predict", "model"),
    **dict.fromkeys([f"GET /models/{{model}}/{name}" for name in ("ping", "health", "version")], ("predict", "model")),
    # Databricks
    "POST /serving-endpoints/{model}/invocations": ("predict", "model"),
    "POST /serving-endpoints/{model}/served-models/{served}/invocations": ("predict", "model"),
    **dict.fromkeys([f"GET /api/2.0/serving-endpoints{end}" for end in ("", "/")], ("predict", "any")),
    **dict.fromkeys([f"POST /api/2.0/serving-endpoints{end}" for end in ("", "/")], ("promote", "any")),  # see the body
    "GET /api/2.0/serving-endpoints/{model}": ("predict", "model"),
    "DELETE /api/2.0/serving-endpoints/{model}": ("promote", "model"),
    "PUT /api/2.0/serving-endpoints/{model}/config": ("promote", "model"),
    # Open Inference Protocol
    **{
        f"{method} /v2/models/{{model}}{version}{end}": ("predict", "model")
        for version in ("", "/versions/{version}")
        for method, end in (("GET", ""), ("GET", "/ready"), ("POST", "/infer"))
    },
}
PLACES = {"on all": ["*"], "here": [MODEL], "elsewhere": ["other", "flight"]}
Keys = dict[str, str]


@pytest.fixture(scope="module")
def keys(module_settings: Settings) -> Keys:
    store = KeyStore(module_settings.keys_dir)
    made = {}
    for role in ROLES:
        for where, models in PLACES.items():
            made[f"{role} {where}"] = store.create(f"{role} {where}", roles=[role], models=models)[1]
    ended, made["revoked"] = store.create("revoked", roles=["admin"])
    store.revoke(ended.id)
    _, made["ended"] = store.create("ended", roles=["admin"], days=1e-9)
    return made


@pytest.fixture(scope="module")
def tokens() -> Keys:
    """A token of the issuer for each of the keys."""
    hour = int(time.time()) + 3600
    return {f"{role} {where}": token(f"{role} {where}", exp=hour) for role in ROLES for where in PLACES}


@pytest.fixture(scope="module")
def server(module_settings: Settings, keys: Keys) -> Iterator[Server]:
    fill_online_store(module_settings)
    publish(module_settings, 1)
    jwks = module_settings.home / "jwks.json"
    jwks.write_text(json.dumps({"keys": [jwk("rsa")]}))
    grants = {f"{role} {where}": {"roles": [role], "models": PLACES[where]} for role in ROLES for where in PLACES}
    with pytest.MonkeyPatch.context() as patch:
        configure(patch, str(jwks), grants)
        server = start_server(module_settings)
    yield server
    server.stop()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def routes() -> list[tuple[str, str]]:
    """Method and path template of everything that the app answers."""
    import tempfile

    app = create_app(Settings(home=Path(tempfile.mkdtemp())))
    found = []
    for route in app.routes:
        methods = {"GET"} if isinstance(route, Mount) else set(getattr(route, "methods", ()) or ()) - {"HEAD"}
        found += [(method, route.path) for method in methods]  # type: ignore[attr-defined]
    return sorted(set(found))


def allowed(need: tuple[str, str] | None, role: str, where: str) -> bool:
    """What the documentation promises."""
    if need is None:
        return True
    wanted, scope = need
    is_enough = {"predict": ("predict", "explain", "admin")}.get(wanted, (wanted, "admin"))
    places = {"all": ("on all",), "model": ("on all", "here"), "any": PLACES}[scope]
    return role in is_enough and where in places


def test_the_walk_knows_what_every_route_takes() -> None:
    assert {f"{method} {path}" for method, path in routes()} == set(NEEDS)


@pytest.mark.parametrize(("method", "template"), routes(), ids=str)
def test_every_route_with_every_key(
    server: Server, keys: Keys, tokens: Keys, module_settings: Settings, method: str, template: str
) -> None:
    need = NEEDS[f"{method} {template}"]
    path = template.replace("{model}", MODEL).replace("{version}", "1")
    if template == "/docs/assets":
        path += "/swagger-ui.css"

    def status(headers: dict[str, str]) -> int:
        answer = server.client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
        if answer.status_code in (401, 403):
            assert MODEL not in answer.text  # nothing of what there is
            assert answer.headers["x-request-id"]
        return answer.status_code

    nothing: list[dict[str, str]] = [
        {},
        bearer("mlp_000000000000_" + "A" * 43),
        bearer(keys["admin on all"].swapcase()),
        {"Authorization": "Bearer"},
        {"Authorization": keys["admin on all"]},
        {"Authorization": f"Digest {keys['admin on all']}"},
        bearer(keys["revoked"]),
        bearer(keys["ended"]),
        bearer(tokens["admin on all"][:-8]),
        {"X-API-Key": f"{tokens['admin on all']}x"},
        bearer(token("admin on all", exp=int(time.time()) - 3600)),
        bearer(token("admin on all", aud="another")),
        bearer(token("admin on all", kid="new")),
    ]
    for headers in nothing:
        assert (status(headers) == 401) is (need is not None), headers
    for role in ROLES:
        for where in PLACES:
            for known in (keys, tokens):
                found = status(bearer(known[f"{role} {where}"]))
                assert (found not in (401, 403)) is allowed(need, role, where), (role, where, found)
                assert found < 500 or need is None
    assert (status(bearer(token("of no role"))) == 403) is (need is not None)
    if method == "DELETE":  # it is gone now: back for the other tests
        publish(module_settings, 1)
        key = bearer(keys["admin on all"])
        server.wait_until(lambda client: client.get(f"/models/{MODEL}", headers=key).status_code == 200)


@pytest.mark.parametrize(
    "path", ["/nothing", "/predict", "/models/../metrics", "//metrics", "/metrics/", "/predict//flight_delay"]
)
def test_what_is_no_route_tells_a_scoped_key_nothing(server: Server, keys: Keys, path: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for headers, wanted in (("", b"401"), (f"X-API-Key: {keys['predict elsewhere']}\r\n", b"403")):
        with socket.create_connection((host, int(port)), 60) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n".encode())
            assert raw.recv(12)[-3:] == wanted


def test_explaining_takes_its_role(server: Server, keys: Keys) -> None:
    for query in ("?features=true", "?explain=true", "?f%65atures=true"):
        path = f"/predict/{MODEL}{query}"
        assert server.client.post(path, json=ROW, headers=bearer(keys["predict here"])).status_code == 403
        answer = server.client.post(path, json=ROW, headers=bearer(keys["explain here"]))
        assert answer.status_code == (422 if "explain" in query else 200)  # the tests' graph holds no explanation


def test_keys_come_as_bearer_header_or_a_browsers_password_but_the_latter_posts_nothing(
    server: Server, keys: Keys
) -> None:
    token = keys["predict on all"]
    for headers in (bearer(token), {"authorization": f"bearer {token}"}, {"X-API-Key": token}):
        assert server.client.post(f"/predict/{MODEL}", json=ROW, headers=headers).status_code == 200
    assert server.client.get("/docs", auth=("anybody", token)).status_code == 200
    assert server.client.post(f"/predict/{MODEL}", json=ROW, auth=("anybody", token)).status_code == 401
    assert 'Basic realm="ml_platform"' in server.client.get("/docs").headers["www-authenticate"]


def test_lists_show_what_the_key_covers(server: Server, keys: Keys) -> None:
    for role, count in (("predict here", 1), ("predict on all", 1), ("predict elsewhere", 0)):
        headers = bearer(keys[role])
        assert len(server.client.get("/models", headers=headers).json()["models"]) == count
        assert len(server.client.get("/api/2.0/serving-endpoints", headers=headers).json()["endpoints"]) == count
    assert server.client.get("/health/ready").json()["models"] == {}
    assert MODEL in server.client.get("/health/ready", headers=bearer(keys["admin on all"])).json()["models"]


def test_errors_have_the_shape_of_their_protocol(server: Server) -> None:
    ours = server.client.post(f"/predict/{MODEL}", json=ROW).json()
    assert ours["error"]["code"] == "unauthenticated"
    for path in ("/invocations", f"/serving-endpoints/{MODEL}/invocations", f"/models/{MODEL}/invocations"):
        assert server.client.post(path, json={}).json()["error_code"] == "UNAUTHENTICATED"
    assert set(server.client.get(f"/v2/models/{MODEL}").json()) == {"error"}


def audit(settings: Settings) -> list[dict[str, Any]]:
    """Every whole line: the server may be writing one."""
    files = [path.read_text().split("\n")[:-1] for path in settings.audit_dir.glob("*.jsonl")]
    return [json.loads(line) for lines in files for line in lines]


def test_the_audit_log_tells_who_asked_for_what_and_never_what_was_sent(
    server: Server, module_settings: Settings, keys: Keys
) -> None:
    headers = {**bearer(keys["predict here"]), "X-Request-ID": "audited-1"}
    row = {**ROW, "flight_id": "a secret flight"}
    server.client.post(f"/predict/{MODEL}", json=row, headers=headers)
    server.client.post("/predict/other", json=row, headers={**headers, "X-Request-ID": "audited-2"})
    server.client.get("/metrics", headers={"X-Request-ID": "audited-3", "Authorization": "Bearer wrong-key"})
    server.wait_until(lambda _: "audited-3" in {line.get("request_id") for line in audit(module_settings)})
    found = {line.get("request_id"): line for line in audit(module_settings)}
    first, second, third = (found[f"audited-{number}"] for number in (1, 2, 3))
    assert (first["name"], first["method"], first["path"], first["status"]) == (
        "predict here",
        "POST",
        f"/predict/{MODEL}",
        200,
    )
    assert (second["status"], second["name"], third["status"]) == (403, "predict here", 401)
    assert "name" not in third
    text = "".join(path.read_text() for path in module_settings.audit_dir.glob("*.jsonl"))
    assert "a secret flight" not in text
    assert "wrong-key" not in text
    assert keys["predict here"] not in text
    logged = "".join(path.read_text() for path in module_settings.inference_log_dir.glob("*/*.jsonl"))
    assert '"caller":"predict here"' in logged
    assert keys["predict here"] not in logged


def test_a_revoked_key_soon_opens_nothing(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    store = KeyStore(settings.keys_dir)
    key, token = store.create("job", roles=["predict"])
    server = serve(settings)
    assert server.client.post(f"/predict/{MODEL}", json=ROW, headers=bearer(token)).status_code == 200
    store.revoke(key.id)

    def is_shut(client: httpx.Client) -> bool:
        return client.post(f"/predict/{MODEL}", json=ROW, headers=bearer(token)).status_code == 401

    server.wait_until(is_shut)
    assert 2 * RELOAD_SECONDS < 1  # within a second, where the machine has the time


def asking(path: str, token: str, method: str = "POST", query: bytes = b"") -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
    return {"method": method, "path": path, "query_string": query, "headers": headers, "client": ("127.0.0.1", 1)}


def test_what_is_remembered_of_a_key_opens_nothing_else(settings: Settings) -> None:
    store = KeyStore(settings.keys_dir)
    _, token = store.create("job", roles=["predict"], models=[MODEL])
    access = Access(store, lambda: MODEL)
    path = f"/predict/{MODEL}"
    assert access.recall(asking(path, token)) is None
    caller = asyncio.run(access.check(asking(path, token)))
    again = asking(path, token)
    assert access.recall(again) is again["key"] is caller is not None
    for other in (
        asking(path, token, query=b"explain=true"),
        asking(path, token, method="PUT"),
        asking("/predict/other", token),
        asking(path, token[:-1] + "_"),
        asking(path, token.swapcase()),
        {**asking(path, token), "headers": [(b"host", b"localhost")]},
        {**asking(path, token), "headers": [(b"x-api-key", b"wrong"), *asking(path, token)["headers"]]},
    ):
        assert access.recall(other) is None
    asyncio.run(access.check(asking("/invocations", token)))
    assert access.recall(asking("/invocations", token)) is None  # the only model may be another one next time


class NextWeek(datetime):
    """The clock of a week from now."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(days=7)


def test_a_remembered_key_ends_when_it_expires_and_when_the_keys_change(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeyStore(settings.keys_dir)
    key, long = store.create("long", roles=["predict"], days=8)
    _, short = store.create("short", roles=["predict"], days=6)
    access = Access(KeyStore(settings.keys_dir), lambda: None)
    requests = {token: asking(f"/predict/{MODEL}", token) for token in (short, long)}
    for request in requests.values():
        access.recall(request)
        asyncio.run(access.check(request))
        assert access.recall(request) is not None
    with monkeypatch.context() as patch:
        patch.setattr("serving.access.callers.datetime", NextWeek)
        assert access.recall(requests[short]) is None
        assert access.recall(requests[long]) is not None
    store.revoke(key.id)
    time.sleep(RELOAD_SECONDS + 0.1)
    assert access.recall(requests[long]) is None
    with pytest.raises(Refused, match="send a valid API key"):
        asyncio.run(access.check(requests[long]))


def test_the_first_key_soon_shuts_an_open_server(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    assert server.client.get("/models").status_code == 200
    _, token = KeyStore(settings.keys_dir).create("first", roles=["predict"])
    server.wait_until(lambda client: client.get("/models").status_code == 401)
    assert server.client.get("/models", headers=bearer(token)).status_code == 200
    (settings.keys_dir / "keys.json").write_text("{")
    end = time.monotonic() + 3 * RELOAD_SECONDS
    answers = set()
    while time.monotonic() < end:
        answers.add(server.client.get("/models").status_code)
        time.sleep(0.05)
    assert answers <= {401, 503}  # a damaged file opens nothing: 503 where the request is the one that finds it so


def test_the_databricks_sdk_is_told_of_a_wrong_token(server: Server, keys: Keys) -> None:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import PermissionDenied, Unauthenticated

    good = WorkspaceClient(host=server.url, token=keys["predict here"], auth_type="pat")
    assert len(good.serving_endpoints.query(MODEL, dataframe_records=[ROW]).predictions or []) == 1
    with pytest.raises(Unauthenticated):
        WorkspaceClient(host=server.url, token="wrong", auth_type="pat").serving_endpoints.get(MODEL)
    with pytest.raises(PermissionDenied):
        WorkspaceClient(host=server.url, token=keys["predict elsewhere"], auth_type="pat").serving_endpoints.get(MODEL)


def start_on_all(settings: Settings, *command: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "ML_PLATFORM_HOME": str(settings.home)}
    return subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_without_keys_it_refuses_to_listen_elsewhere(settings: Settings) -> None:
    refused = start_on_all(settings, "serving", "--host", "0.0.0.0", "--port", "0")
    _, told = refused.communicate(timeout=120)
    assert refused.returncode == 1
    assert "no API keys" in told
    assert "ml-platform keys create" in told
    KeyStore(settings.keys_dir).create("job", roles=["predict"])
    started = start_on_all(settings, "serving", "--host", "0.0.0.0", "--port", "0")
    try:
        assert started.stdout is not None
        assert started.stdout.readline().startswith("serving: http://0.0.0.0:")
    finally:
        started.terminate()
        started.communicate(timeout=120)


@pytest.mark.parametrize(
    ("address", "comes_in"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("10.0.0.5", False),
        ("12.7.0.1", False),
        ("fe80::1", False),
    ],
)
def test_only_loopback_addresses_are_the_machines_own(settings: Settings, address: str, comes_in: bool) -> None:
    access = Access(KeyStore(settings.keys_dir), lambda: None)
    with nullcontext() if comes_in else pytest.raises(Refused, match="answers its own machine only"):
        access.check_open({"client": (address, 1)})


def test_without_keys_it_answers_its_own_machine_alone_however_it_was_started(settings: Settings) -> None:
    address = next(
        (found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
         if not str(found[4][0]).startswith("127.")), None
    )  # fmt: skip
    if address is None:
        pytest.skip("this machine has no address but its loopback")
    port = free_port()
    process = start_on_all(
        settings, "uvicorn", "serving.app:create_app", "--factory", "--host", "0.0.0.0", "--port", str(port)
    )
    try:
        assert answering(f"http://127.0.0.1:{port}/health/live").status_code == 200
        answer = httpx.get(f"http://{address}:{port}/models", timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "no_keys")
    finally:
        process.terminate()
        process.communicate(timeout=120)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:1", "null"])
def test_a_page_from_elsewhere_cannot_write_to_a_server_without_keys(
    settings: Settings, serve: Callable[..., Server], origin: str
) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    # What a browser sends for a page's `fetch(url, {method: "POST", mode: "no-cors", body: text})`, unasked.
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    for path in (f"/predict/{MODEL}", f"/models/{MODEL}/invocations", "/features/origin_weather"):
        answer = server.client.post(path, content=json.dumps(ROW), headers=headers)
        assert answer.status_code == 403
        assert "answers no pages but its own" in answer.text
    assert list(settings.inference_log_dir.glob("*/*.jsonl")) == []
    own = server.client.post(f"/predict/{MODEL}", json=ROW, headers={"Origin": server.url})
    assert own.status_code == 200
