"""The web console, in a browser and as they come from the server."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from ml_platform.governance.keys import KeyStore
from ml_platform.monitoring.drift.report import DriftReport, publish_drift
from ml_platform.monitoring.performance.measure import PerformanceReport, publish_performance
from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.registry.manifest import Input, Target
from ml_platform.registry.model_card import CardGuardrail, CardQuality, ModelCard, store_card
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.chromium import browser  # noqa: F401 - a fixture
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.prediction.test_details import boosted
from ml_platform_tests.serving.prediction.test_intervals import VALUES
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, announce, bundle, fill_online_store, publish

PAGE = f"/models/{MODEL}/console"
SCRIPT = "<script>document.title='run'</script>"
Serve = Callable[..., Server]


@contextmanager
def watched(browser: Browser, server: Server, *, status: int | None = None, **options: object) -> Iterator[Page]:  # noqa: F811
    """A page of which nothing may go wrong: no error in its console but a wanted status, no request to elsewhere."""
    context = browser.new_context(base_url=server.url, **options)  # type: ignore[arg-type]
    context.set_default_timeout(120_000)
    page = context.new_page()
    troubles: list[str] = []

    def note(text: str, wrong: bool) -> None:
        if wrong:
            troubles.append(text)

    page.on("console", lambda message: note(message.text, message.type in ("error", "warning")))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: note(request.url, not request.url.startswith(server.url)))
    yield page
    context.close()
    # A browser reports every answer that is no success.
    assert [trouble for trouble in troubles if status is None or f"status of {status}" not in trouble] == []


def report_drift(settings: Settings, day: int, *, verdict: str) -> None:
    until = datetime(2013, 6, day, tzinfo=UTC)
    reason = "4 of 9 features drifted; they carry 40% of the model's importance"
    report = DriftReport(
        model=MODEL, version=1, window_from=until - timedelta(days=7), window_until=until, rows=700, compared_rows=700,
        reference_rows=900, compared_reference_rows=900, columns=(), prediction=None, drifted_importance=0.4,
        skewed_share=None, verdict=verdict, reasons=(reason,), html=None,
    )  # fmt: skip
    publish_drift(ReleaseStore(settings.releases_dir), report)


@pytest.fixture(scope="module")
def trees() -> bytes:
    """A graph that can explain itself."""
    return boosted()[1]


@pytest.fixture(scope="module")
def server(module_settings: Settings, trees: bytes) -> Iterator[Server]:
    fill_online_store(module_settings)
    store = ReleaseStore(module_settings.releases_dir)
    changes = {"description": f"Late? {SCRIPT}", "owner": f"team {SCRIPT}"}
    targets = [
        Target(version=7, digest=store.put_bundle(bundle(7, graph=trees, family="lightgbm", **changes)), share=1.0),
        Target(version=8, digest=store.put_bundle(bundle(8)), share=0.0, mode="shadow"),
    ]
    store.publish(MODEL, targets, reason=f"for a test {SCRIPT}", by="pytest")
    report_drift(module_settings, 20, verdict="no drift")
    report_drift(module_settings, 30, verdict="drift")
    server = start_server(module_settings)
    yield server
    server.stop()


def test_the_form_predicts_and_explains(browser: Browser, server: Server) -> None:  # noqa: F811
    with watched(browser, server) as page:
        page.goto("/")
        page.get_by_role("link", name=MODEL, exact=True).click()
        page.get_by_label("distance").fill("1234")
        page.get_by_label("carrier").fill("AA")
        with page.expect_response("**/predict/**") as answered:
            page.get_by_role("button", name="Predict").click()
        sent = answered.value.request.post_data_json
        assert sent == {**ROW, "distance": 1234, "carrier": "AA"}
        answer = answered.value.json()
        [prediction] = answer["predictions"]
        place = page.locator("#answer")
        expect(place).to_contain_text(f"late: {'yes' if prediction['prediction'] else 'no'}")
        expect(place).to_contain_text(answer["request_id"])
        expect(place).to_contain_text(f"{MODEL} 7")
        first, push = next(iter(prediction["explanation"]["contributions"].items()))
        bars = place.locator("#forces .force")
        expect(bars).to_have_count(12)
        expect(bars.first).to_contain_text(first)
        assert float(bars.first.locator(".by").inner_text().replace("−", "-")) == pytest.approx(push, rel=0.01)
        width = bars.first.locator("i").bounding_box()
        assert width is not None
        assert width["width"] > 20
        expect(place).to_contain_text("distance = 1,234 mile")
        page.get_by_label("tailnum").fill("")  # may be left out, which is not the same as an empty text
        with page.expect_response("**/predict/**") as answered:
            page.get_by_role("button", name="Predict").press("Enter")
        assert "tailnum" not in (answered.value.request.post_data_json or {"tailnum": "no body"})


def test_the_form_asks_for_an_interval(settings: Settings, serve: Serve, browser: Browser) -> None:  # noqa: F811
    fill_online_store(settings)
    publish(settings, 1, task="regression", threshold=None, conformal=VALUES)
    with watched(browser, serve(settings), status=422) as page:  # of the first try: this graph explains nothing
        page.goto(PAGE)
        page.get_by_label("interval of").select_option("0.9")
        with page.expect_response("**/predict/**") as answered:
            page.get_by_role("button", name="Predict").click()
        assert "interval=0.9" in answered.value.url
        expect(page.locator("#interval-answer")).to_contain_text("90 % of cases: ")
        expect(page.locator("#interval-answer")).to_contain_text("(as of the holdout)")


def test_a_field_that_does_not_fit_is_marked_with_the_servers_words(browser: Browser, server: Server) -> None:  # noqa: F811
    with watched(browser, server, status=422) as page:
        page.goto(PAGE)
        page.locator("form").evaluate("form => { form.noValidate = true; }")
        page.get_by_label("distance").fill("9000")
        with page.expect_response("**/predict/**") as answered:
            page.get_by_role("button", name="Predict").click()
        assert answered.value.status == 422
        wrong = page.locator(".field.wrong")
        expect(wrong).to_have_count(1)
        expect(wrong).to_contain_text("6000")
        expect(page.locator("#answer")).to_contain_text("invalid_request")


def test_the_page_follows_what_the_server_counts(browser: Browser, server: Server) -> None:  # noqa: F811
    with watched(browser, server) as page:
        page.goto("/")
        plot = page.locator("#models .plot").first
        few = re.compile(r"\b(\d answered|no requests)")  # those of the tests before
        expect(plot).to_contain_text(few)
        for _ in range(20):
            server.client.post(f"/predict/{MODEL}", json=ROW)
        expect(plot).to_contain_text(re.compile(r"\b2\d answered"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", PAGE])
def test_it_fits_a_phone_and_every_text_has_contrast(browser: Browser, server: Server, path: str, scheme: str) -> None:  # noqa: F811
    with watched(browser, server, viewport={"width": 375, "height": 700}, color_scheme=scheme) as page:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        assert page.evaluate(_LOW_CONTRAST) == []
        unlabelled = page.evaluate(
            "[...document.querySelectorAll('input, select, meter, svg')].filter(e => !(e.labels && e.labels.length) "
            "&& !e.getAttribute('aria-label')).map(e => e.outerHTML)"
        )
        assert unlabelled == []


def test_nothing_that_people_write_into_a_model_runs(browser: Browser, server: Server) -> None:  # noqa: F811
    for path in ("/", PAGE):
        response = server.client.get(path)
        assert SCRIPT not in response.text
        assert "&lt;script&gt;" in response.text
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.findall(r"<script(?![^>]*src=)|\sstyle=|\son\w+=", response.text)
        with watched(browser, server) as page:
            page.goto(path)
            assert page.title() != "run"
            expect(page.locator("body")).to_contain_text(SCRIPT)


def test_with_keys_the_page_asks_for_one_and_sends_it_as_bearer(
    browser: Browser,  # noqa: F811
    settings: Settings,
    serve: Serve,
    trees: bytes,
) -> None:
    fill_online_store(settings)
    publish(settings, 1, graph=trees, family="lightgbm")
    keys = KeyStore(settings.keys_dir)
    _, reader = keys.create("reads", roles=["predict"])
    _, explainer = keys.create("explains", roles=["explain"])
    server = serve(settings)
    assert server.client.get(PAGE).status_code == 401
    with watched(browser, server, status=403, http_credentials={"username": "any", "password": reader}) as page:
        page.goto(PAGE)
        page.get_by_label("explain").uncheck()
        page.get_by_label("API key").fill(reader)
        with page.expect_response("**/predict/**") as answered:
            page.get_by_role("button", name="Predict").click()
        assert answered.value.request.headers["authorization"] == f"Bearer {reader}"
        expect(page.locator("#answer")).to_contain_text(answered.value.json()["request_id"])
        assert page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'
        page.get_by_label("explain").check()
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("this key lacks the role 'explain'")
        page.get_by_label("API key").fill(explainer)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#forces")).to_be_visible()


def test_versions_shadow_drift_and_features_show(server: Server) -> None:
    page = re.sub(r"<[^>]+>|\s+", " ", server.client.get("/").text)
    page = re.sub(r" +", " ", page)
    assert re.search(r"7 \w{8} 100 % lightgbm 2013-06-01", page)
    assert re.search(r"8 \w{8} shadow scored, never answers linear", page)
    assert "drift" in page
    assert "40 % " in page
    assert "1 of 2 windows alarmed" in page
    assert "origin_weather flight_delay 2013-07-01 10:00 UTC" in page
    assert re.search(r"origin_weather .{1,80} years ago past its TTL now 0 s ago|min ago|s ago", page)
    assert server.client.get("/models/unheard_of/console").status_code == 404


def test_what_was_refused_and_why_is_told(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    lost = ReleaseStore(settings.releases_dir).put_bundle(bundle(2))
    path = ReleaseStore(settings.releases_dir).bundle_path(lost) / "golden.json"
    path.write_text("{}")
    announce(settings, lost)
    server.client.post(f"/predict/{MODEL}", json={})
    path_of_status = ReleaseStore(settings.releases_dir).status_path(MODEL)
    path_of_status.parent.mkdir()
    path_of_status.write_text("not JSON")

    def told(client: httpx.Client) -> bool:
        page = client.get("/").text
        return (
            "Revision 2 is refused" in page
            and "Revision 1 serves on" in page
            and "rows do not fit the signature" in page
        )

    server.wait_until(told)
    page = server.client.get("/").text
    assert "what monitoring found cannot be read" in page
    assert "not a status document" in page


def test_a_form_has_a_control_for_every_type_and_tells_the_contract(
    settings: Settings,
    serve: Serve,
    browser: Browser,  # noqa: F811
) -> None:
    inputs = (
        *INPUTS,
        Input(name="rebooked", type="boolean", example=True),
        Input(name="rank", type="integer", required=False, minimum=1.0, unit="place", flagged=("null",)),
        Input(name="cabin", type="string", allowed=("first", "rear"), required=False, default="rear"),
        Input(name="bags", type="integer", minimum=0.0, maximum=2.0, flagged=("range",), example=1),
        Input(name="meal", type="string", allowed=("fish", "veal"), flagged=("allowed",), example="veal"),
        Input(name="seat", type="string", pattern=r"\d{1,2}[A-F/\-]", example="12A"),
    )
    fill_online_store(settings)
    publish(settings, 1, inputs=inputs)
    server = serve(settings)
    with watched(browser, server) as page:
        page.goto(PAGE)
        assert page.get_by_label("rebooked").input_value() == "true"
        page.get_by_label("rebooked").select_option("false")
        assert page.get_by_label("rank").get_attribute("min") == "1.0"
        page.get_by_label("rank").fill("9007199254740993")  # JavaScript's numbers cannot hold it
        assert page.get_by_label("cabin").locator("option").all_inner_texts() == ["rear by default", "first", "rear"]
        page.get_by_label("cabin").select_option("first")
        page.get_by_label("bags").fill("3")  # which the page lets through, as the server does
        page.get_by_label("explain").uncheck()
        seat = page.get_by_label("seat")
        for text, fits in (("12a", False), ("12A ", False), ("7/", True), ("7-", True), ("7B", True)):
            seat.fill(text)
            assert seat.evaluate("control => control.checkValidity()") is fits
        with page.expect_response("**/predict/**") as answered:
            page.get_by_role("button", name="Predict").click()
        assert answered.value.status == 200
        expect(page.locator("#answer .warn")).to_contain_text("bags: wanted an integer of at least 0 and at most 2")
        sent = answered.value.request.post_data or ""
        assert '"rank": 9007199254740993' in sent
        assert '"rebooked": false' in sent
        assert page.locator("#known-carrier option").count() == 3
        hints = {
            name: page.locator(f"#about-{name}").inner_text() for name in ("distance", "rank", "cabin", "bags", "seat")
        }
        assert hints == {
            "distance": "Flown · 0 to 6,000",
            "rank": "at least 1, optional, flagged when empty",
            "cabin": "optional, rear when empty",
            "bags": "0 to 2, flagged otherwise",
            "seat": r"matches \d{1,2}[A-F/\-]",
        }
        assert page.locator("#about-meal").inner_text() == "2 known values, flagged otherwise"


def test_values_that_break_the_contract_are_counted_by_input(settings: Settings, serve: Serve) -> None:
    bags = Input(name="bags", type="integer", maximum=2.0, flagged=("range",), example=1)
    fill_online_store(settings)
    publish(settings, 1, inputs=(*INPUTS, bags))
    server = serve(settings)
    assert "Values that break" in server.client.get(PAGE).text
    for distance, bags_taken in ((1400, 5), (1400, 6), (9000, 1)):
        server.client.post(f"/predict/{MODEL}", json={**ROW, "distance": distance, "bags": bags_taken})

    def lines(client: httpx.Client) -> str:
        text = re.sub(r"<[^>]+>|\s+", " ", client.get(PAGE).text.partition("Values that break")[2])
        return re.sub(r" +", " ", text)

    flagged = "bags a number outside its range flagged 2 2"
    refused = "distance a number outside its range refused 1 1"
    # The page's numbers are of every few seconds, perhaps of one between two of the requests.
    server.wait_until(lambda client: flagged in lines(client) and refused in lines(client))


def test_names_that_no_model_can_have_show_as_refused_and_their_links_lead_to_them(
    settings: Settings,
    serve: Serve,
    browser: Browser,  # noqa: F811
) -> None:
    names = ("a b", "100%", "x?y#z", "<b>ü", 'q"uote')
    fill_online_store(settings)
    publish(settings, 1)
    for name in names:
        (ReleaseStore(settings.releases_dir).folder / "endpoints" / f"{name}.json").write_text("{}")
    server = serve(settings)
    server.wait_until(lambda client: len(client.get("/models").json()["models"]) == 6)
    with watched(browser, server) as page:
        for name in names:
            page.goto("/")
            page.locator("h2 a").filter(has_text=name).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
            expect(page.locator("#about .alert")).to_contain_text("Its endpoint document is refused")
            expect(page.locator("form")).to_have_count(0)


def test_a_model_whose_only_release_is_refused_says_that_nothing_serves(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    announce(settings, "0" * 64, 1)
    server = serve(settings)
    for path in ("/", PAGE):
        page = " ".join(re.sub(r"<[^>]+>", " ", server.client.get(path).text).split())
        assert "Revision 1 is refused" in page
        assert "for its version 1: bundle 000000000000 is not in the release store" in page
        assert "Nothing serves: requests are answered 503." in page
        assert "Try it" not in page


def test_performance_shows_with_its_bounds(settings: Settings, serve: Serve) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    until = datetime(2013, 6, 30, tzinfo=UTC)
    report = PerformanceReport(
        model=MODEL, version=1, metric="roc_auc", window_from=until - timedelta(days=7), window_until=until,
        scored_rows=800, rows=700, metrics={"roc_auc": 0.7345}, interval=(0.70, 0.76), minimum=0.65, holdout=0.75,
        days=7, verdict="fine", reasons=("roc_auc 0.7345",),
    )  # fmt: skip
    publish_performance(ReleaseStore(settings.releases_dir), report)
    page = serve(settings).client.get("/").text
    assert "performance fine" in page
    assert "roc_auc, 700 labelled rows, holdout 0.75, minimum 0.65" in page
    assert "0.734" in page or "0.735" in page


# Every text with less than 4.5 : 1 against what is behind it (3 : 1 when large), as WCAG 2.2 wants of level AA.
_LOW_CONTRAST = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("noscript, option")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700;
    if (ratio < (large ? 3 : 4.5)) found.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}
"""


def test_the_metric_of_the_gate_and_the_choice_of_the_threshold_are_told(
    settings: Settings, serve: Callable[..., Server]
) -> None:
    fill_online_store(settings)
    found = {"log_loss": 0.7, "f1": 0.6, "accuracy": 0.8}
    publish(
        settings, 1, metric="f1", metrics=found, threshold=0.25, threshold_choice="the best F1 on the validation rows"
    )
    client = serve(settings).client
    assert client.get(f"/models/{MODEL}").json()["metric"] == "f1"
    page = client.get(f"/models/{MODEL}/console").text
    assert "f1 0.600" in page
    assert "log_loss" not in page
    meaning = "late: true at a probability of 0.25 or more (the best F1 on the validation rows)"
    assert meaning in client.get("/openapi.json").text


def carded(settings: Settings, version: int) -> None:
    """Write a card of a version, as its registration does."""
    store = ReleaseStore(settings.releases_dir)
    digest = store.versions(MODEL)[version]
    manifest = store.load_manifest(digest)
    broken = CardGuardrail(
        name="calibration", value="0.09 (0.05 to 0.13)", bound="≤ 0.03", verdict="broken", optional=False, reason=SCRIPT
    )
    quality = CardQuality(
        metric="roc_auc", rows=10, first="2013-06-01T00:00:00Z", last="2013-06-02T00:00:00Z", metrics={"roc_auc": 0.7},
        reference="naive baseline", reference_metrics={}, naive_metrics={}, naive="0", guardrails=(broken,),
    )  # fmt: skip
    card = ModelCard(
        quality=quality, model=MODEL, version=version, written_at="2026-01-02T03:04:05Z", description=SCRIPT,
        owner="team:flights",
        words=SCRIPT, task="binary", target="late", family="linear", params={"C": 0.1}, features=manifest.features,
        labels={"true": 0.2}, provenance=manifest.provenance, passed=True, reasons=(SCRIPT,), release="By itself.",
        digest=digest, model_digest=manifest.model_digest, links={"MLflow run": "http://127.0.0.1:5000/#/run"},
    )  # fmt: skip
    store_card(store, card)


def test_a_version_leads_to_its_card(settings: Settings, serve: Serve, browser: Browser) -> None:  # noqa: F811
    fill_online_store(settings)
    publish(settings, 1)
    carded(settings, 1)
    server = serve(settings)
    with watched(browser, server) as page:
        page.goto(PAGE)
        page.get_by_role("link", name="model card").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(f"{MODEL} version 1")
        expect(page).to_have_title(f"{MODEL}, version 1: model card")  # no script that came with the text has run
        assert page.get_by_text("live 100%").count() == 1
    for path, status, message in (
        (f"/models/{MODEL}/versions/2/card", 404, "versions with one: 1"),
        ("/models/Never/versions/1/card", 404, "lower-case"),
    ):
        answer = server.client.get(path)
        assert (answer.status_code, message in answer.text) == (status, True), answer.text


def test_a_version_that_waits_is_approved_in_the_page(settings: Settings, serve: Serve, browser: Browser) -> None:  # noqa: F811
    fill_online_store(settings)
    publish(settings, 1)
    store = ReleaseStore(settings.releases_dir)
    digest = store.put_bundle(bundle(2))
    store.register_version(MODEL, 2, digest)
    store.approvals.set_policy(MODEL, ApprovalPolicy())
    store.approvals.request(MODEL, 2, digest, revision=1, by="dagster run 7", comment=SCRIPT)
    carded(settings, 2)
    keys = KeyStore(settings.keys_dir)
    token = keys.create("bob", roles=["promote", "predict"], models=[MODEL])[1]
    server = serve(settings)
    with watched(browser, server, status=401, extra_http_headers={"X-API-Key": token}) as page:
        page.goto(PAGE)
        waiting = page.get_by_role("region", name="Version 2 waits for an approval")
        expect(waiting).to_contain_text("dagster run 7")
        expect(waiting).to_contain_text(SCRIPT)
        expect(waiting.get_by_role("row", name="calibration")).to_contain_text("broken")
        waiting.get_by_label("Comment").fill("card read")
        waiting.get_by_label("API key").fill(token)
        waiting.get_by_role("button", name="Approve").click()
        expect(waiting).to_contain_text("Approved; it serves as revision 2.")
    document = store.document(MODEL)
    assert document is not None
    assert (document.targets[0].version, document.updated_by, document.reason) == (2, "bob", "approved: card read")
