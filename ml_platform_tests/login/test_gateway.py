"""What reaches the servers behind the gateway, from whom, and what does not: attacks by every kind of request."""

import json
import re
import socket
from contextlib import closing

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from ml_platform.gateway_identity import GatewaySigner, Identity
from ml_platform.governance.keys import KeyStore
from ml_platform_tests.login.gateway_world import JSON, PASSWORD, PEOPLE
from ml_platform_tests.login.gateway_world import world as make_world

DELETE = "mutation { deleteRun(runId: 1) { __typename } }"
LAUNCH = "mutation { launchRun(executionParams: {}) { __typename } }"
START = "mutation { startSensor(sensorSelector: {}) { __typename } }"
READ = "{ version }"


def raw(world, request: bytes, *, wanted: int = 1) -> bytes:
    """Send bytes as they are; return what comes until the server hangs up, or has answered."""
    with socket.create_connection(("127.0.0.1", world.port), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while (chunk := connection.recv(65536)) and answer.count(b"HTTP/1.1 ") <= wanted:
            answer += chunk
            if re.search(rb"content-length: (\d+)\r\n.*?\r\n\r\n", answer, re.DOTALL):
                head, _, body = answer.partition(b"\r\n\r\n")
                if len(body) >= int(re.search(rb"content-length: (\d+)", head)[1]):  # type: ignore[index]
                    break
        return answer


def cookie_of(client: httpx.Client) -> str:
    return f"ml_platform={client.cookies['ml_platform']}"


# Without signing in


@pytest.mark.parametrize(
    "path", ["/", "/dagster/", "/dagster/runs?x=1", "/mlflow/", "/mlflow/get-artifact", "/metrics", "/docs"]
)
def test_nothing_is_shown_without_a_session(world, path):
    before = world.arrived()
    with world.client() as client:
        page = client.get(path, headers={"accept": "text/html"})
        assert page.status_code == 303
        assert page.headers["location"].startswith("/-/login")
        data = client.get(path)
        assert data.status_code == 401
        assert data.headers["x-ml-platform-sign-in"] == "/-/login"
        assert "nothing was done" in data.json()["errors"][0]["message"]
        assert client.post(path, json={}).status_code == 401
    assert world.arrived() == before


def test_the_health_of_the_gateway_alone_is_open(world):
    assert httpx.get(f"{world.url}/-/health", trust_env=False).json() == {"status": "live"}


def test_signing_in_leads_back_and_gives_a_cookie_that_pages_cannot_read(world):
    with world.client() as client:
        answer = world.sign_in(client, "viewer", next_="/dagster/runs?view=queued")
        assert (answer.status_code, answer.headers["location"]) == (303, "/dagster/runs?view=queued")
        cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith("ml_platform="))
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert client.get("/dagster/runs").status_code == 200


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example", "///evil.example/x"])
def test_signing_in_leads_nowhere_else(world, target):
    with world.client() as client:
        assert world.sign_in(client, "viewer", next_=target).headers["location"] == "/-/"


def test_a_session_never_continues_one_that_somebody_set(world):
    """Session fixation: the secret after signing in is new, and the one before stays worthless."""
    with world.client() as client:
        client.cookies.set("ml_platform", "chosen-by-somebody-else", domain="127.0.0.1")
        answer = world.sign_in(client, "viewer")
        given = re.findall(r"ml_platform=([^;]+)", ",".join(answer.headers.get_list("set-cookie")))[0]
        assert given != "chosen-by-somebody-else"
        assert client.get("/dagster/", headers={"cookie": "ml_platform=chosen-by-somebody-else"}).status_code == 401


def test_of_two_cookies_none_is_believed(world, people):
    """One of them was set by another site below the same domain."""
    both = f"ml_platform=of-a-sibling; {cookie_of(people['admin'])}"
    assert httpx.get(f"{world.url}/dagster/", headers={"cookie": both}, trust_env=False).status_code == 401


@pytest.mark.parametrize(
    ("name", "password"), [("viewer", "wrong horse battery"), ("nobody", PASSWORD), ("", ""), ("VIEWER", PASSWORD)]
)
def test_a_wrong_name_and_a_wrong_password_are_answered_alike(world, name, password):
    with world.client() as client:
        answer = world.sign_in(client, name, password)
        assert answer.status_code == 401
        assert "do not belong together" in answer.text
        assert "ml_platform" not in client.cookies


def test_a_form_of_another_browser_signs_nobody_in(world):
    with world.client() as mine, world.client() as other:
        token = re.findall(r'name="form" value="([^"]+)"', other.get("/-/login").text)[0]
        mine.get("/-/login")
        for form in (token, "", "1.2", token[:-1] + "x"):
            answer = mine.post("/-/login", data={"form": form, "name": "viewer", "password": PASSWORD})
            assert answer.status_code == 403
            assert "ml_platform" not in mine.cookies


def test_a_large_form_and_one_of_another_kind_are_refused(world):
    with world.client() as client:
        assert client.post("/-/login", data={"form": "x" * 20_000}).status_code == 403
        assert client.post("/-/login", json={"form": "x"}).status_code == 403


def test_signing_out_ends_the_session_on_the_server(world):
    with closing(world.client("viewer")) as client:
        kept = cookie_of(client)
        page = client.get("/-/").text
        token = re.findall(r'logout"><input type="hidden" name="form" value="([^"]+)"', page)[0]
        assert client.post("/-/logout", data={"form": "1.2"}).status_code == 403
        assert client.post("/-/logout", data={"form": token}).status_code == 200
        assert httpx.get(f"{world.url}/dagster/", headers={"cookie": kept}, trust_env=False).status_code == 401


# Roles


@pytest.mark.parametrize(
    ("document", "needs"), [(READ, "viewer"), (LAUNCH, "launcher"), (START, "editor"), (DELETE, "admin")]
)
def test_each_role_may_do_on_dagster_what_it_includes(world, people, document, needs):
    for name, client in people.items():
        before = world.arrived()
        answer = client.post("/dagster/graphql", json={"query": document})
        may = PEOPLE.index(name) >= PEOPLE.index(needs)
        assert answer.status_code == (200 if may else 403), name
        assert world.arrived() - before == int(may)


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("GET", "/mlflow/", "viewer"),
        ("POST", "/mlflow/ajax-api/2.0/mlflow/runs/search", "viewer"),
        ("POST", "/mlflow/api/2.0/mlflow/runs/create", "launcher"),
        ("PUT", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a.bin", "launcher"),
        ("POST", "/mlflow/api/2.0/mlflow/experiments/delete", "editor"),
        ("DELETE", "/mlflow/api/2.0/mlflow/registered-models/delete", "editor"),
        ("POST", "/mlflow/api/3.0/mlflow/gateway/secrets/create", "admin"),
        ("POST", "/mlflow/gateway/openai/v1/embeddings", "admin"),
        ("GET", "/", "viewer"),
        ("POST", "/predict/flight_delay", "launcher"),
        ("POST", "/features/origin_weather/lookup", "launcher"),
        ("POST", "/features/origin_weather", "editor"),
        ("PUT", "/endpoints/flight_delay", "editor"),
        ("DELETE", "/endpoints/flight_delay", "editor"),
        ("POST", "/dagster/report_asset_materialization/raw/flights", "editor"),
        ("GET", "/dagster/download_debug/1", "editor"),
        ("GET", "/dagster/notebook?path=/etc/passwd", "editor"),
    ],
)  # fmt: skip
def test_each_role_may_do_elsewhere_what_it_includes(world, people, method, path, needs):
    for name, client in people.items():
        before = world.arrived()
        answer = client.request(method, path, json=None if method == "GET" else {})
        may = PEOPLE.index(name) >= PEOPLE.index(needs)
        assert answer.status_code == (200 if may else 403), name
        assert world.arrived() - before == int(may)


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/dagster/graphql", {"params": {"query": DELETE}}),
        ("HEAD", "/dagster/graphql", {"params": {"query": DELETE}}),
        ("GET", "/mlflow/graphql", {"params": {"query": DELETE}}),
        ("PUT", "/dagster/graphql", {"json": {"query": DELETE}}),
        ("POST", "/dagster/graphql", {"params": {"query": DELETE}}),
        ("POST", "/dagster/graphql", {"data": {"query": DELETE}}),
        ("POST", "/dagster/graphql", {"content": DELETE, "headers": {"content-type": "application/graphql"}}),
        ("POST", "/dagster/graphql", {"content": READ, "headers": {"content-type": "text/plain"}}),
        ("POST", "/dagster/graphql", {"json": [{"query": READ}, {"query": DELETE}]}),
        ("POST", "/dagster/graphql", {"json": {"extensions": {"persistedQuery": {"sha256Hash": "0"}}}}),
        ("POST", "/dagster/graphql/", {"json": {"query": DELETE}}),
        ("POST", "/dagster/GraphQL", {"json": {"query": DELETE}}),
        ("POST", "/dagster/graphql.", {"json": {"query": DELETE}}),
        ("POST", "/dagster/graphql%2f", {"json": {"query": DELETE}}),
        ("POST", "/dagster/%67raphql", {"json": {"query": DELETE}}),
        ("POST", "/dagster//graphql", {"json": {"query": DELETE}}),
        ("POST", "//dagster/graphql", {"json": {"query": DELETE}}),
        ("POST", "/dagster/./graphql", {"json": {"query": DELETE}}),
        ("POST", "/mlflow/%2e%2e/dagster/graphql", {"json": {"query": DELETE}}),
        ("POST", "/DAGSTER/graphql", {"json": {"query": DELETE}}),
        ("POST", "/dagster/graphql", {"json": {"query": f"query A {READ} {DELETE}", "operationName": "A"}}),
        ("POST", "/dagster/graphql", {"json": {"query": DELETE}, "headers": {"x-http-method-override": "GET"}}),
        ("POST", "/dagster/graphql", {"content": b"\x1f\x8b", "headers": {**JSON, "content-encoding": "gzip"}}),
        ("POST", "/dagster/graphql", {"json": {"query": "{ a " + "b " * 5_000_000 + "}"}}),
        ("POST", "/mlflow/ajax-api/2.0/mlflow/runs/delete/", {"json": {}}),
        ("POST", "/mlflow/AJAX-API/2.0/mlflow/runs/delete", {"json": {}}),
        ("DELETE", "/mlflow/static-files/a.js", {}),
        ("TRACE", "/dagster/", {}),
        ("OPTIONS", "/dagster/graphql", {}),
        ("PROPFIND", "/dagster/", {}),
    ],
)  # fmt: skip
def test_no_spelling_of_a_change_passes_for_a_viewer(world, people, method, path, options):
    before = world.arrived()
    request = people["viewer"].build_request(method, "/", **options)
    request.url = request.url.copy_with(
        raw_path=path.encode() + (b"?" + request.url.query if request.url.query else b"")
    )
    try:
        answer = people["viewer"].send(request)
    except (httpx.WriteError, httpx.ReadError):  # it hung up on a body that was too large
        assert world.arrived() == before
        return
    assert 400 <= answer.status_code < 500, answer.text
    assert world.arrived() == before


def test_what_a_query_in_the_address_says_is_not_what_is_run(world, people):
    """Dagster reads the query of the address where the body is none: it gets the body that was judged, as JSON."""
    answer = people["viewer"].post("/dagster/graphql", params={"query": DELETE}, json={"query": READ})
    assert answer.status_code == 200
    came = world.behind["dagster"].last()
    assert json.loads(came["body"]) == {"query": READ}
    assert dict(came["headers"])["content-type"] == "application/json"


def test_a_role_for_one_place_opens_no_other(world):
    world.accounts.add("tracker", PASSWORD, roles=["mlflow=editor"])
    with closing(world.client("tracker")) as client:
        assert client.get("/mlflow/").status_code == 200
        for path in ("/dagster/", "/", "/metrics"):
            assert client.get(path).status_code == 403
        assert client.post("/dagster/graphql", json={"query": READ}).status_code == 403


def test_a_changed_role_a_new_password_and_an_end_count_with_the_next_request(world):
    world.accounts.add("mallory", PASSWORD, roles=["editor"])
    with closing(world.client("mallory")) as client:
        assert client.post("/dagster/graphql", json={"query": START}).status_code == 200
        world.accounts.set_roles("mallory", ["viewer"])
        assert client.post("/dagster/graphql", json={"query": START}).status_code == 403
        world.accounts.set_password("mallory", "another horse battery")
        assert client.get("/dagster/").status_code == 401
        world.sign_in(client, "mallory", "another horse battery")
        assert client.get("/dagster/").status_code == 200
        world.accounts.disable("mallory")
        assert client.get("/dagster/").status_code == 401
        assert world.sign_in(client, "mallory", "another horse battery").status_code == 401


# Pages of other sites, other names


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "https://127.0.0.1:{port}"},
        {"origin": "http://127.0.0.1:{port}.evil.example"},
        {"origin": "http://localhost:{port}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": ""},
    ],
)
@pytest.mark.parametrize(
    "path", ["/dagster/graphql", "/-/logout", "/mlflow/ajax-api/2.0/mlflow/runs/search", "/predict/m"]
)
def test_pages_of_other_sites_send_nothing(world, people, headers, path):
    before = world.arrived()
    sent = {name: value.format(port=world.port) for name, value in headers.items()}
    answer = people["admin"].post(path, json={"query": DELETE}, headers=sent)
    assert answer.status_code == 403
    assert world.arrived() == before


def test_a_change_without_an_origin_is_refused_and_a_link_may_be_followed(world, people):
    cookie = {"cookie": cookie_of(people["admin"])}
    assert (
        httpx.post(f"{world.url}/dagster/graphql", json={"query": DELETE}, headers=cookie, trust_env=False).status_code
        == 403
    )
    link = {**cookie, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert httpx.get(f"{world.url}/dagster/", headers=link, trust_env=False).status_code == 200
    embedded = {**link, "sec-fetch-dest": "iframe"}
    assert httpx.get(f"{world.url}/dagster/", headers=embedded, trust_env=False).status_code == 403
    read = {**cookie, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
    assert httpx.get(f"{world.url}/dagster/", headers=read, trust_env=False).status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "127.0.0.1:{port}@evil.example"],
)
def test_another_name_is_refused(world, people, host):
    headers = {"host": host.format(port=world.port)}
    assert people["viewer"].get("/dagster/", headers=headers).status_code == 421


# What is told to the servers behind


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "X-ML-Platform-Identity", "X_ML_Platform_Identity", "X-Forwarded-User", "X-Forwarded-For",
        "X-Real-IP",
        "Forwarded", "X-Original-URL", "X-Rewrite-URL", "Cookie", "Origin", "X-API-Key", "Remote_User",
    ],
)  # fmt: skip
def test_no_header_of_a_client_says_who_it_is(world, people, name):
    if name in {"Authorization", "X-API-Key"}:  # a key that is none: not the session's either
        assert people["viewer"].get("/dagster/", headers={name: "Gateway forged"}).status_code == 401
        return
    value = {"Origin": world.url, "Cookie": f"{cookie_of(people['viewer'])}; x=forged"}.get(name, "forged")
    assert people["viewer"].get("/dagster/", headers={name: value}).status_code == 200
    came = world.behind["dagster"].last()["headers"]
    assert not any("forged" in one for _, one in came)
    assert not any(one in {"cookie", "origin", "forwarded"} for one, _ in came)


def test_a_header_that_connection_names_cannot_take_the_identity_away(world, people):
    people["viewer"].get("/dagster/", headers={"connection": "authorization, host, x-forwarded-for"})
    came = dict(world.behind["dagster"].last()["headers"])
    assert came["authorization"].startswith("Gateway ")
    assert came["x-forwarded-for"] == "127.0.0.1"


def test_each_server_is_told_who_asks_in_words_for_it_alone(world, people):
    signer = GatewaySigner(world.settings.keys_dir)
    for name, path in (("dagster", "/dagster/"), ("mlflow", "/mlflow/"), ("console", "/")):
        people["viewer"].get(path)
        [told] = [value for one, value in world.behind[name].last()["headers"] if one == "authorization"]
        assert signer.identity(told, name) == Identity("viewer", "viewer", ("analysts",))
        assert all(signer.identity(told, other) is None for other in world.behind if other != name)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\nContent-Length: 40\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: +4\r\n",
    ],
)
def test_a_second_request_in_a_body_is_not_smuggled(world, people, framing):
    before = world.arrived()
    smuggled = b"0\r\n\r\nPOST /dagster/graphql HTTP/1.1\r\nHost: x\r\n\r\n"
    head = f"POST /predict/m HTTP/1.1\r\nHost: 127.0.0.1:{world.port}\r\nOrigin: {world.url}\r\n"
    head += f"Cookie: {cookie_of(people['launcher'])}\r\n"
    answer = raw(world, head.encode() + framing + b"\r\n" + smuggled)
    assert answer.startswith(b"HTTP/1.1 4") or not answer, answer
    assert world.arrived() == before


@pytest.mark.parametrize("target", [b"*", b"/dagster/\x00", b"/dagster/ x", b"/dagster/\xff", b"evil:80"])
def test_odd_targets_of_requests_reach_nothing(world, people, target):
    before = world.arrived()
    head = f" HTTP/1.1\r\nHost: 127.0.0.1:{world.port}\r\nCookie: {cookie_of(people['viewer'])}\r\n"
    answer = raw(world, b"GET " + target + head.encode() + b"Connection: close\r\n\r\n")
    assert not answer.startswith(b"HTTP/1.1 2"), answer
    assert world.arrived() == before


# Bodies and downloads


def test_large_bodies_stream_in_both_directions(world, people):
    size, part = 24 * 2**20, b"x" * 2**18
    world.behind["mlflow"].answers["/get-artifact"] = (
        200,
        [(b"content-length", b"%d" % size)],
        [part] * (size // len(part)),
    )
    sent = people["launcher"].put(
        "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a.bin", content=(part for _ in range(size // len(part)))
    )
    assert sent.status_code == 200
    assert len(world.behind["mlflow"].last()["body"]) == size
    with people["viewer"].stream("GET", "/mlflow/get-artifact") as answer:
        assert answer.headers["content-length"] == str(size)
        assert sum(len(chunk) for chunk in answer.iter_raw()) == size


def test_an_answer_comes_before_it_is_whole(world, people):
    """The first part is here while the server behind still waits for what the client does with it."""
    import threading

    seen = threading.Event()

    async def slowly(send):
        import asyncio

        await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
        await asyncio.to_thread(seen.wait, 60)
        await send({"type": "http.response.body", "body": b"last\n"})

    world.behind["dagster"].answers["/dagster/logs/live"] = (200, [(b"content-type", b"text/plain")], slowly)
    with people["viewer"].stream("GET", "/dagster/logs/live") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first\n"
        seen.set()
        assert b"".join(parts) == b"last\n"


def test_uploaded_pages_are_shown_without_rights_and_no_cookie_comes_from_behind(world, people):
    page = b"<html><head></head><script>fetch('/dagster/graphql')</script></html>"
    headers = [
        (b"content-type", b"text/html"),
        (b"set-cookie", b"ml_platform=theirs"),
        (b"content-length", b"%d" % len(page)),
    ]
    world.behind["mlflow"].answers["/get-artifact"] = (200, headers, [page])
    shown = people["viewer"].get(
        "/mlflow/get-artifact", headers={"sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}
    )
    assert shown.headers["content-security-policy"].startswith("sandbox")
    assert "set-cookie" not in shown.headers
    assert shown.content == page


def test_pages_get_the_script_that_tells_of_an_ended_session(world, people):
    html = b"<!doctype html><html><head><title>a</title></head></html>"
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", b"script-src 'nonce-abc'")]
    world.behind["dagster"].answers["/dagster/runs"] = (200, headers, [html])
    shown = people["viewer"].get("/dagster/runs", headers={"sec-fetch-dest": "document"})
    assert '<head><script src="/-/static/session.js" nonce="abc"></script><title>' in shown.text
    assert people["viewer"].get("/-/static/session.js").status_code == 200
    assert people["viewer"].get("/-/static/../pages.py").status_code == 404
    world.behind["dagster"].answers.pop("/dagster/runs")


def test_redirects_of_the_servers_behind_stay_at_this_address(world, people):
    behind = world.behind["mlflow"]
    own = f"http://127.0.0.1:{behind.port}/experiments".encode()
    behind.answers["/old"] = (302, [(b"location", own)], [b""])
    assert people["admin"].get("/mlflow/old").headers["location"] == "/mlflow/experiments"


def test_a_server_that_is_away_is_said_to_be(world, people):
    from ml_platform.login.proxy import Upstream
    from ml_platform_tests.ports import free_port

    kept = world.gateway._upstreams["mlflow"]
    world.gateway._upstreams["mlflow"] = Upstream("MLflow", f"http://127.0.0.1:{free_port()}", "/mlflow")
    try:
        answer = people["viewer"].get("/mlflow/")
    finally:
        world.gateway._upstreams["mlflow"] = kept
    assert (answer.status_code, "MLflow does not answer" in answer.text) == (502, True)


# Programs with keys


def test_programs_send_keys_which_count_for_what_they_may(world):
    keys = KeyStore(world.settings.keys_dir)
    tokens = {
        name: keys.create(name, roles=[role], models=[models])[1]
        for name, role, models in [
            ("p", "predict", "*"),
            ("e", "promote", "*"),
            ("a", "admin", "*"),
            ("one", "admin", "m"),
        ]
    }
    expected = {"p": (403, 403, 403), "e": (200, 200, 403), "a": (200, 200, 200), "one": (403, 403, 403)}
    for name, token in tokens.items():
        with httpx.Client(base_url=world.url, trust_env=False, headers={"authorization": f"Bearer {token}"}) as program:
            statuses = tuple(
                program.post("/dagster/graphql", json={"query": query}).status_code for query in (READ, START, DELETE)
            )
            assert statuses == expected[name], name
            # The prediction server gets the key itself, and judges it.
            assert program.post("/predict/m", json={}).status_code == 200
            assert dict(world.behind["console"].last()["headers"])["authorization"] == f"Bearer {token}"
    wrong = httpx.post(
        f"{world.url}/dagster/graphql", json={"query": READ}, headers={"x-api-key": "mlp_no"}, trust_env=False
    )
    assert wrong.status_code == 401


# WebSockets


def socket_of(world, client: httpx.Client | None, **options):
    headers = {"cookie": cookie_of(client)} if client is not None else {}
    return connect(
        f"ws://127.0.0.1:{world.port}{options.pop('path', '/dagster/graphql')}",
        additional_headers=headers,
        origin=options.pop("origin", world.url),
        subprotocols=[Subprotocol("graphql-ws")],
        proxy=None,
        **options,
    )


def test_subscriptions_pass(world, people):
    with socket_of(world, people["viewer"]) as opened:
        opened.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(opened.recv(60)) == {"got": "connection_init"}
        opened.send(
            json.dumps({"type": "start", "id": "1", "payload": {"query": "subscription { pipelineRunLogs { a } }"}})
        )
        assert json.loads(opened.recv(60)) == {"got": "start"}


@pytest.mark.parametrize(
    "message",
    [
        json.dumps({"type": "start", "id": "1", "payload": {"query": DELETE}}),
        json.dumps({"type": "start", "payload": {"query": f"subscription A {{ a }} {DELETE}", "operationName": "A"}}),
        json.dumps({"type": "subscribe", "id": "1", "payload": {"query": DELETE}}),
        '{"type": "stop", "type": "start", "id": "1", "payload": {"query": "' + DELETE + '"}}',
        "x" * 2_000_000,
        b"\x00\x01",
    ],
)  # fmt: skip
def test_changes_do_not_pass_by_websocket_not_even_an_admins(world, people, message):
    before = world.arrived()
    with socket_of(world, people["admin"]) as opened:
        opened.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            opened.recv(60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code in {4403, 1009}
    assert world.arrived() == before


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None])
def test_pages_of_other_sites_open_no_websocket(world, people, origin):
    with socket_of(world, people["admin"], origin=origin) as opened, pytest.raises(ConnectionClosed) as closed:
        opened.recv(60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


def test_a_websocket_without_a_session_says_to_sign_in(world, people):
    with socket_of(world, None) as opened, pytest.raises(ConnectionClosed) as closed:
        opened.recv(60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    for path in ("/mlflow/graphql", "/dagster/", "/", "/-/login"):
        with socket_of(world, people["admin"], path=path) as opened, pytest.raises((ConnectionClosed, InvalidStatus)):
            opened.recv(60)


def test_a_websocket_ends_with_its_session(world):
    world.accounts.add("leaver", PASSWORD, roles=["viewer"])
    with closing(world.client("leaver")) as client, socket_of(world, client) as opened:
        opened.send(json.dumps({"type": "connection_init"}))
        opened.recv(60)
        world.accounts.disable("leaver")
        with pytest.raises(ConnectionClosed) as closed:
            opened.recv(120)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


# The audit log


def test_who_signed_in_changed_what_and_was_refused_is_in_the_audit_log(world):
    world.accounts.add("eve", PASSWORD, roles=["launcher"])
    with world.client() as client:
        world.sign_in(client, "eve", "wrong horse battery")
        world.sign_in(client, "eve")
        variables = {"executionParams": {"selector": {"jobName": "train"}, "runConfigData": {"password": "hidden"}}}
        client.post("/dagster/graphql", json={"query": LAUNCH, "variables": variables})
        client.post("/dagster/graphql", json={"query": DELETE, "variables": {"runId": "r1"}})
        client.post("/dagster/graphql", json={"query": READ})
    lines = [line for line in world.audit() if "eve" in str(line.get("name")) + str(line.get("detail"))]
    told = [(line["action"], line.get("name"), line.get("detail", "")) for line in lines[1:]]
    assert told[0] == ("sign-in failed", None, "user:eve")
    assert told[1] == ("signed in", "user:eve", "by account")
    assert told[2] == ("change", "user:eve", "dagster: launchRun (jobName=train) as launcher")
    assert told[3][:2] == ("refused", "user:eve")
    assert "deleteRun" in told[3][2]
    assert len(told) == 4, "reading is not noted"
    assert "hidden" not in json.dumps(world.audit())


def test_what_was_typed_as_a_name_is_not_kept(world):
    """People type their password there."""
    with world.client() as client:
        world.sign_in(client, "my-secret-password-1")
    assert "my-secret-password-1" not in json.dumps(world.audit())


def test_a_change_that_cannot_be_noted_is_not_made(world, people, monkeypatch):
    before = world.arrived()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(world.gateway._log._log, "record", full)
        assert people["admin"].post("/dagster/graphql", json={"query": DELETE}).status_code == 503
        assert people["admin"].post("/dagster/graphql", json={"query": READ}).status_code == 200
    assert world.arrived() == before + 1


# What was sent to break it


def test_where_files_are_kept_is_an_admins_to_say_on_mlflow(world, people):
    for api in ("api", "ajax-api"):
        for path, body in (
            ("experiments/create", {"name": "x", "artifact_location": "/etc"}),
            ("experiments/create", {"name": "x", "artifactLocation": "file:///etc"}),
            ("model-versions/create", {"name": "x", "source": "s3://bucket/x"}),
        ):
            address = f"/mlflow/{api}/2.0/mlflow/{path}"
            for name in ("launcher", "editor"):
                before, lines = world.arrived(), len(world.audit())
                assert people[name].post(address, json=body).status_code == 403
                assert world.arrived() == before
                assert [line["action"] for line in world.audit()[lines:]] == ["refused"]
            assert people["admin"].post(address, json=body).status_code == 200
            assert json.loads(world.behind["mlflow"].last()["body"]) == body
    twice = b'{"name": "x", "artifact_location": "/etc", "artifact_location": ""}'
    answer = people["launcher"].post("/mlflow/api/2.0/mlflow/experiments/create", content=twice, headers=JSON)
    assert answer.status_code == 200
    assert json.loads(world.behind["mlflow"].last()["body"]) == {"name": "x", "artifact_location": ""}
    packed = people["launcher"].post(
        "/mlflow/api/2.0/mlflow/experiments/create", content=b"x", headers={**JSON, "content-encoding": "gzip"}
    )
    assert packed.status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"query": DELETE, "variables": {"runId": "\ud800"}}),
        json.dumps(
            {
                "query": "mutation { ...F0 } fragment F1500 on M { deleteRun } "
                + " ".join(f"fragment F{n} on M {{ ...F{n + 1} }}" for n in range(1500))
            }
        ),
        '{"query": "' + DELETE + '", "variables": {"runId": ' + "[" * 980 + "]" * 980 + "}}",
    ],
)  # fmt: skip
def test_what_is_refused_is_noted_whatever_was_sent(world, people, body):
    before, lines = world.arrived(), len(world.audit())
    answer = people["viewer"].post("/dagster/graphql", content=body, headers=JSON)
    assert 400 <= answer.status_code < 500
    assert world.arrived() == before
    assert [line["action"] for line in world.audit()[lines:]] == ["refused"]
    message = '{"type": "start", "id": "1", "payload": ' + body + "}"
    with connect(
        f"ws://127.0.0.1:{world.port}/dagster/graphql",
        subprotocols=[Subprotocol("graphql-ws")],
        additional_headers={"Cookie": cookie_of(people["viewer"])},
        origin=world.url,
    ) as socket_:
        socket_.send(message)
        with pytest.raises(ConnectionClosed):
            socket_.recv(timeout=60)
    assert socket_.close_code == 4403
    assert [line["action"] for line in world.audit()[lines:]] == ["refused"] * 2


def test_the_health_is_told_under_any_name_and_a_missing_style_is_not_found(world):
    answer = httpx.get(f"{world.url}/-/health", headers={"host": "elsewhere:1"}, trust_env=False)
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})
    assert httpx.get(f"{world.url}/-/", headers={"host": "elsewhere:1"}, trust_env=False).status_code == 421
    assert httpx.get(f"{world.url}/-/static/none.css", trust_env=False).status_code == 404


def test_no_typed_name_is_kept_when_there_were_too_many_attempts(tmp_path):
    with make_world(tmp_path) as world, world.client() as client:
        for _ in range(11):
            answer = world.sign_in(client, "my secret password")
        assert answer.status_code == 429
        assert world.audit()[-1]["action"] == "sign-in refused"
        assert "secret" not in json.dumps(world.audit())


def test_damaged_files_are_said_and_mended_without_a_restart(tmp_path):
    with make_world(tmp_path) as world, world.client() as client:
        token = re.findall(r'name="form" value="([^"]+)"', client.get("/-/login").text)[0]
        form = {"form": token, "name": "admin", "password": PASSWORD}
        sessions = world.settings.login_dir / "sessions.db"
        sessions.write_bytes(b"no database " * 1000)
        assert client.post("/-/login", data=form).status_code == 503
        assert client.get("/dagster/", headers={"cookie": "ml_platform=x"}).status_code == 503
        sessions.unlink()
        assert client.post("/-/login", data=form).status_code == 303
        kept = world.accounts.path.read_bytes()
        world.accounts.path.write_bytes(kept[:-20])
        assert client.get("/dagster/").status_code == 503
        with world.client() as other:
            assert other.get("/-/login").status_code == 503
            assert other.get("/-/health").status_code == 200
        world.accounts.path.write_bytes(kept)
        assert client.get("/dagster/").status_code == 200
