"""Dagster's webserver in a real browser: a hostile page starts nothing through the guard, and the UI works."""

import http.client
import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from ml_platform_tests.chromium import browser  # noqa: F401 - a fixture
from ml_platform_tests.orchestration.webserver_process import Dagster, serve

LAUNCH = (
    'mutation { launchRun(executionParams: {selector: {repositoryLocationName: "small", '
    'repositoryName: "__repository__", jobName: "hello"}}) { __typename } }'
)
# All ways of a page to make the browser of its reader ask another server.
ATTACK = """
<img id=image> <script id=script></script> <iframe name=frame></iframe>
<form id=form method=post target=frame enctype="text/plain">
<input name='{"query":"%(escaped)s","x":"' value='"}'></form>
<form id=query method=post target=frame></form>
<script>
const url = "%(url)s/graphql", query = %(query)s, asked = url + "?query=" + encodeURIComponent(query);
const body = JSON.stringify({query});
const settled = [];
const await_load = (node) => settled.push(new Promise((done) => { node.onload = node.onerror = done; }));
await_load(image); image.src = asked;
const script = document.createElement("script"); await_load(script); script.src = asked; document.body.append(script);
const frame = document.createElement("iframe"); await_load(frame); frame.src = asked; document.body.append(frame);
form.action = url; form.submit();
query_form = document.getElementById("query"); query_form.action = asked; query_form.submit();
for (const type of ["text/plain", "application/json", "application/x-www-form-urlencoded"])
  for (const mode of ["no-cors", "cors", "same-origin"])
    settled.push(fetch(url, {method: "POST", mode, body, headers: {"Content-Type": type}, credentials: "include"}));
settled.push(fetch(asked, {mode: "no-cors"}));
navigator.sendBeacon(url, body);
navigator.sendBeacon(asked);
settled.push(new Promise((done) => {
  const socket = new WebSocket(url.replace("http", "ws"), "graphql-ws");
  socket.onopen = () => { window.socket_opened = true;
    socket.send(JSON.stringify({type: "start", id: "1", payload: {query}})); setTimeout(done, 500); };
  socket.onerror = done;
}));
Promise.allSettled(settled).then(() => { document.title = "done"; });
</script>
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    yield from serve(tmp_path_factory.mktemp("guarded"), "ml_platform.orchestration.webserver", runs_at_once=True)


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    yield from serve(tmp_path_factory.mktemp("unguarded"), "dagster_webserver")


@pytest.fixture(scope="module")
def hostile_port() -> Iterator[int]:
    """A server of somebody else, whose pages attack what `?` names."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = self.path.partition("?")[2]
            page = attack(target).encode() if target else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def attack(url: str) -> str:
    return ATTACK % {"url": url, "query": json.dumps(LAUNCH), "escaped": LAUNCH.replace('"', "&quot;")}


def visit(page: Page, address: str) -> None:
    page.goto(address, timeout=120_000)
    page.wait_for_function("document.title === 'done'", timeout=120_000)
    # Requests whose end no page can see have been sent before this one, which is answered behind them.
    page.evaluate("new Promise((done) => setTimeout(done, 1000))")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "evil.example"])
def test_a_hostile_page_starts_no_run(browser: Browser, guarded: Dagster, hostile_port: int, name: str):  # noqa: F811
    page = browser.new_page()
    before = guarded.runs
    visit(page, f"http://{name}:{hostile_port}/?{guarded.url}")
    assert page.evaluate("window.socket_opened") is None
    page.goto(f"{guarded.url}/graphql?query={LAUNCH}")  # a link that the reader follows
    assert "GraphQL is asked by POST" in page.content()
    assert guarded.runs == before
    page.close()


def rebound(page: Page, port: int) -> str:
    """DNS rebinding: the page comes from its own name and port, which then lead to Dagster; all is of one origin."""
    address = f"http://evil.example:{port}"
    page.route(f"{address}/", lambda route: route.fulfill(body=attack(address), content_type="text/html"))
    visit(page, f"{address}/")
    return address


def test_a_name_that_is_turned_to_this_machine_starts_no_run(browser: Browser, guarded: Dagster):  # noqa: F811
    page = browser.new_page()
    before = guarded.runs
    address = rebound(page, guarded.port)
    body = "method: 'POST', body: JSON.stringify({query: '{ version }'}), headers: {'Content-Type': 'application/json'}"
    assert page.evaluate(f"fetch('/graphql', {{{body}}}).then((answer) => answer.status)") == 403
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=60)
    headers = {"Host": f"evil.example:{guarded.port}", "Origin": address, "Content-Type": "application/json"}
    connection.request("POST", "/graphql", json.dumps({"query": LAUNCH}), headers)
    assert connection.getresponse().status == 403
    assert page.evaluate("window.socket_opened") is None
    assert guarded.runs == before
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["another site", "rebound name"])
def test_the_same_page_does_start_runs_without_the_guard(
    browser: Browser,  # noqa: F811
    unguarded: Dagster,
    hostile_port: int,
    way: str,
):
    """The control: what is refused above would have done harm."""
    page = browser.new_page()
    before = unguarded.runs
    if way == "another site":
        visit(page, f"http://localhost:{hostile_port}/?{unguarded.url}")
    else:
        rebound(page, unguarded.port)
    while unguarded.runs == before:  # the page does not see when the server is through
        page.wait_for_timeout(200)
    page.close()


@pytest.mark.timeout(600)
def test_the_ui_launches_a_run_and_follows_it_live(browser: Browser, guarded: Dagster):  # noqa: F811
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    received: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(str(frame))))
    before = guarded.runs
    page.goto(f"{guarded.url}/assets/greeting", timeout=120_000)
    page.get_by_role("button", name="Materialize").first.click(timeout=120_000)
    page.get_by_text("Launched run").first.wait_for(timeout=120_000)
    assert guarded.runs == before + 1
    (run,) = guarded.instance.get_runs(limit=1)
    page.goto(f"{guarded.url}/runs/{run.run_id}", timeout=120_000)
    # The events of a run come over the websocket alone.
    expect(page.get_by_text("RUN_SUCCESS").first).to_be_visible()
    assert any("RunSuccessEvent" in frame for frame in received)
    page.close()
