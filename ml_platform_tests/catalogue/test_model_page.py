"""The page of a model: declared, trained, released, without labels, damaged; as HTML, PDF and stored."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.catalogue.model_page.document import ModelPage, page_path, read_page, store_page
from ml_platform.catalogue.model_page.facts import model_page
from ml_platform.catalogue.model_page.render import page_html, page_pdf
from ml_platform.monitoring.status import PerformanceWindow, add_window
from ml_platform.registry.manifest import Target
from ml_platform.registry.model_card import CardGuardrail, CardQuality, ModelCard, store_card
from ml_platform.settings import Settings
from ml_platform_tests.toy_world import Shops, multiclass_spec, regression_spec, shop_spec

NOW = datetime(2026, 5, 8, 12, tzinfo=UTC)


def released(shops: Shops, digest: str) -> None:
    shops.store.register_version("order_late", 1, digest)
    target = (Target(version=1, digest=digest),)
    shops.store.publish("order_late", target, by="dagster run 0123456789ab-cd", reason="Promote: it was better")


def page_of(shops: Shops, now: datetime = NOW) -> ModelPage:
    return model_page(shops.settings, "order_late", shops.spec, folder=shops.folder, now=now)


@pytest.mark.parametrize(
    "spec",
    [shop_spec(), regression_spec(), multiclass_spec(), regression_spec(quantile=0.9)],
    ids=["binary", "regression", "multiclass", "quantile"],
)
def test_a_model_that_was_never_trained_has_a_page(tmp_path, spec):
    page = model_page(Settings(home=tmp_path), spec.name, spec)
    assert page.state == "Not trained yet: there is no version of it."
    assert page.quality == ("Nothing has been measured: the model is not trained yet.",)
    assert page.problems == ()
    assert page_pdf(page).startswith(b"%PDF-")
    assert spec.owner in page_html(page)


def test_there_is_no_page_of_what_there_is_not(tmp_path):
    with pytest.raises(LookupError, match="there is no model 'nope'"):
        model_page(Settings(home=tmp_path), "nope", None)


def test_a_released_model_says_how_good_it_is_and_who_released_it(shops, trained_shops):
    _, trained = trained_shops
    released(shops, trained.digest)
    page = page_of(shops, datetime.now(UTC) + timedelta(minutes=1))
    assert page.is_serving
    assert page.state.startswith("In service: version 1 (live 100%)")
    assert page.predicts[0] == "For each of the orders: is it late, and how probable is that (0 to 100 %)?"
    assert page.quality[0].startswith("Of 100 orders that it marks as late, ")
    assert page.looks_at
    assert [one.by for one in page.changes] == ["the platform (run 01234567)"]
    assert dict(page.week)["Releases"] == "1 change of what serves."
    assert dict(page.week)["Labels"].startswith("No true values have come yet")
    assert page.review == "No review is planned: set review_every in its defs.yaml."


def test_the_week_counts_what_it_holds_and_no_more(shops, trained_shops):
    _, trained = trained_shops
    released(shops, trained.digest)
    at = [NOW - timedelta(days=days) for days in (1, 1, 6, 8)]
    shops.lake.append("inference_log/order_late", pl.DataFrame({"request_id": ["a", "a", "b", "c"], "scored_at": at}))
    shops.lake.append("predictions/order_late", pl.DataFrame({"id": ["x", "y"], "scored_at": at[2:]}))
    alerts = shops.settings.alerts_dir / "alerts.jsonl"
    alerts.parent.mkdir(parents=True)
    lines = [
        {
            "model": "order_late",
            "severity": "error",
            "at": (NOW - timedelta(days=2)).isoformat(),
            "title": "no_drift failed",
        },
        {"model": "order_late", "severity": "error", "at": (NOW - timedelta(days=9)).isoformat(), "title": "old"},
        {"model": "another", "severity": "error", "at": (NOW - timedelta(days=2)).isoformat(), "title": "other"},
    ]
    alerts.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut off', encoding="utf-8")
    window = PerformanceWindow(
        since=NOW - timedelta(days=7), until=NOW, version=1, scored_rows=10, rows=8, verdict="below", metric="roc_auc",
        value=0.61, interval=None, holdout=None, minimum=None, reason="",
    )  # fmt: skip
    add_window(shops.store, "order_late", "performance", window)
    week = dict(page_of(shops).week)
    assert week["Requests"].startswith("2 requests with 3 predictions")
    assert week["Batch"] == "1 predictions."
    assert week["Alarms"] == "1 error: no drift failed."
    assert week["Labels"].endswith("tells late from not late in 61 of 100 pairs, worse than expected.")


def test_a_review_is_due_after_the_last_one(shops, trained_shops):
    _, trained = trained_shops
    released(shops, trained.digest)
    from ml_platform.registry.version_notes import NoteWish

    world = Shops(shops.settings, shops.folder, shop_spec(review_every="90 days"), shops.views)
    assert "90 days after what serves was last changed" in page_of(world).review
    world.store.notes.add("order_late", None, [NoteWish(action="tag", name="reviewed", text="2026-01-01")], by="ann")
    assert page_of(world).review.startswith(
        "The next review is overdue since 2026-04-01, 90 days after the review of 2026-01-01"
    )
    world.store.notes.add("order_late", None, [NoteWish(action="tag", name="reviewed", text="soon")], by="ann")
    assert "is no day: 'soon'" in page_of(world).review


def test_what_cannot_be_read_is_said_and_hides_nothing_else(shops, trained_shops):
    _, trained = trained_shops
    released(shops, trained.digest)
    log = Path(shops.settings.lake_uri) / "inference_log" / "order_late" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("not a commit\n")
    for name in ("model.onnx", "manifest.json"):
        (shops.store.bundle_path(trained.digest) / name).unlink(missing_ok=True)
    page = page_of(shops)
    assert any("version 1" in problem for problem in page.problems)
    assert any("the lake cannot be read" in problem for problem in page.problems)
    assert page.owner == "shops@example.com"
    assert "What could not be read" in page_html(page)


def test_pages_are_escaped_and_scripts_never_run(tmp_path):
    nasty = "<script>alert(1)</script> & <b>bold</b> {{ 7 * 7 }} " + "long " * 2_000
    spec = shop_spec(
        description=nasty, owner="<i>x</i>", inputs=[{"name": "order_id", "type": "string", "description": nasty}]
    )
    page = model_page(Settings(home=tmp_path), spec.name, spec)
    html = page_html(page)
    assert "<script>" not in html
    assert "49" not in html
    assert page_pdf(page).startswith(b"%PDF-")


def test_signs_of_other_alphabets_are_in_the_pdf(tmp_path):
    spec = shop_spec(description="Прогноз задержки, ναι, größer ≤ 5 °C, \x07 and 日本")
    assert page_pdf(model_page(Settings(home=tmp_path), spec.name, spec)).startswith(b"%PDF-")


def test_a_stored_page_is_read_again(tmp_path):
    page = model_page(Settings(home=tmp_path), "order_late", shop_spec())
    store_page(tmp_path, page)
    assert read_page(tmp_path, "order_late") == page
    with pytest.raises(LookupError, match="ml-platform catalogue refresh"):
        read_page(tmp_path, "another")
    page_path(tmp_path, "order_late").write_text("{}")
    with pytest.raises(LookupError, match="cannot be read"):
        read_page(tmp_path, "order_late")
    with pytest.raises(ValueError, match="is no name of a model"):
        page_path(tmp_path, "../../etc/passwd")


@pytest.mark.parametrize(
    ("names", "says"), [(("slices of shop",), "none had enough measured rows"), ((), "nobody has looked")]
)
def test_groups_that_were_too_small_are_told_from_groups_that_nobody_compared(shops, trained_shops, names, says):
    _, trained = trained_shops
    released(shops, trained.digest)
    held = [
        CardGuardrail(name=name, value="", bound="≤ 0.05", verdict="not computed", optional=False, reason="few rows")
        for name in ("latency", *names)
    ]
    quality = CardQuality(
        metric="roc_auc", rows=10, first="2026-06-01T00:00:00Z", last="2026-06-02T00:00:00Z", metrics={"roc_auc": 0.7},
        reference="naive baseline", reference_metrics={}, naive_metrics={}, naive="0", guardrails=tuple(held),
    )  # fmt: skip
    manifest = shops.store.load_manifest(trained.digest)
    card = ModelCard(
        quality=quality, model="order_late", version=1, written_at="2026-06-02T00:00:00Z", description="", owner="x",
        task="binary", target="late", family="linear", params={}, features=manifest.features, labels={},
        provenance=manifest.provenance, passed=True, reasons=(), release="", digest=trained.digest,
        model_digest=manifest.model_digest, links={},
    )  # fmt: skip
    store_card(shops.store, card)
    assert says in page_of(shops).groups_say
