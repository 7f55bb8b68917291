"""Every route with every key and token: none, wrong, ended, of each role, of another model; and what the audit has."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Mount

from ml_platform.governance.keys import ROLES, KeyStore
from ml_platform.serving.app import create_app
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer, start_server
from ml_platform_tests.serving.issuing import configure, jwk, token
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

# What each route takes: a role, for the model that the path names, for all of them, or for whichever ("any", where a
# list shows what is covered). None for the probes. A route that is not here fails the walk.
NEEDS: dict[str, tuple[str, str] | None] = {
    **dict.fromkeys(["GET /health/live", "GET /health/ready", "GET /health", "GET /ping"]),
    **dict.fromkeys(["GET /v2/health/live", "GET /v2/health/ready"]),
    **dict.fromkeys(["GET /", "GET /metrics", "GET /openapi.json"], ("predict", "all")),
    **dict.fromkeys(["GET /docs", "GET /docs/assets", "GET /assets"], ("predict", "any")),
    **dict.fromkeys(["GET /models", "GET /streams", "GET /version", "GET /v2"], ("predict", "any")),
    **dict.fromkeys(["GET /audit/reads", "GET /audit/console"], ("admin", "all")),
    **dict.fromkeys(["GET /cost", "GET /cost/console"], ("predict", "all")),
    "GET /models/{model}": ("predict", "model"),
    "GET /models/{model}/console": ("predict", "model"),
    "PATCH /models/{model}": ("promote", "model"),
    "GET /models/{model}/versions": ("predict", "model"),
    "GET /models/{model}/versions/{version}": ("predict", "model"),
    "PATCH /models/{model}/versions/{version}": ("promote", "model"),
    "GET /models/{model}/console/versions": ("predict", "model"),
    "GET /models/{model}/console/versions/{version}": ("predict", "model"),
    "GET /models/{model}/console/compare": ("predict", "model"),
    "GET /models/{model}/console/page": ("predict", "model"),
    # lists and shows what the key covers
    **dict.fromkeys(["GET /catalogue", "GET /catalogue/{name}", "GET /assets/catalogue"], ("predict", "any")),
    **dict.fromkeys(["GET /catalogue/search", "GET /catalogue/entries/{name}"], ("predict", "any")),
    "POST /predict/{model}": ("predict", "model"),
    "POST /predict/{model}/versions/{version}": ("predict", "model"),
    "POST /features/{view}": ("push", "all"),
    "POST /features/{view}/lookup": ("predict", "features"),
    "GET /features": ("predict", "any"),
    **dict.fromkeys([f"GET /lineage{end}" for end in ("", "/console", "/impact")], ("predict", "all")),
    "GET /features/{view}/console": ("predict", "features"),
    "POST /get-online-features": ("predict", "any"),  # see the body
    "GET /endpoints/{model}": ("predict", "model"),
    "PUT /endpoints/{model}": ("promote", "model"),
    "DELETE /endpoints/{model}": ("promote", "model"),
    "GET /endpoints/{model}/history": ("predict", "model"),
    "GET /endpoints/{model}/approvals": ("predict", "model"),
    "POST /endpoints/{model}/approvals/{version}": ("promote", "model"),
    "GET /models/{model}/versions/{version}/card": ("predict", "model"),
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
PLACES = {"on all": ["*"], "here": [MODEL], "elsewhere": ["other", "flight"], "features": [f"features/{MODEL}"]}
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
    places = {"all": ("on all",), "model": ("on all", "here"), "features": ("on all", "features"), "any": PLACES}[scope]
    return role in is_enough and where in places


def test_the_walk_knows_what_every_route_takes() -> None:
    assert {f"{method} {path}" for method, path in routes()} == set(NEEDS)


@pytest.mark.parametrize(("method", "template"), routes(), ids=str)
def test_every_route_with_every_key(
    server: Server, keys: Keys, tokens: Keys, module_settings: Settings, method: str, template: str
) -> None:
    need = NEEDS[f"{method} {template}"]
    path = template.replace("{model}", MODEL).replace("{version}", "1").replace("{view}", MODEL)
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


@pytest.mark.parametrize(
    "query", ["?explain=false&features=false", "?features=0", "?explain=False", "?explain=1&explain=0"]
)
def test_declining_an_explanation_takes_no_role(server: Server, keys: Keys, query: str) -> None:
    """As clients do that send every option with its default."""
    answer = server.client.post(f"/predict/{MODEL}{query}", json=ROW, headers=bearer(keys["predict here"]))
    assert (answer.status_code, "features" in answer.json()["predictions"][0]) == (200, False)


def test_explaining_takes_its_role(server: Server, keys: Keys) -> None:
    for query in ("?features=true", "?explain=true", "?f%65atures=true", "?features=TRUE", "?features=0&features=1"):
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


def test_the_databricks_sdk_is_told_of_a_wrong_token(server: Server, keys: Keys) -> None:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import PermissionDenied, Unauthenticated

    good = WorkspaceClient(host=server.url, token=keys["predict here"], auth_type="pat")
    assert len(good.serving_endpoints.query(MODEL, dataframe_records=[ROW]).predictions or []) == 1
    with pytest.raises(Unauthenticated):
        WorkspaceClient(host=server.url, token="wrong", auth_type="pat").serving_endpoints.get(MODEL)
    with pytest.raises(PermissionDenied):
        WorkspaceClient(host=server.url, token=keys["predict elsewhere"], auth_type="pat").serving_endpoints.get(MODEL)
