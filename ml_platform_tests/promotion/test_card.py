"""A version's model card: made of what was recorded; as Markdown, as a page, in MLflow, with what it has served."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.promotion.card import write_card
from ml_platform.promotion.power import measured_power, power_beforehand
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.registry.card_pages import ANNEX_IV, card_html, card_markdown
from ml_platform.registry.lost_data import note_lost_data
from ml_platform.registry.model_card import ModelCard, card_path, load_card, store_card
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.registry.version_notes import NoteWish
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops

WORDS = "# Limits\n\nNot for <orders> abroad & | never for groceries."


@pytest.fixture
def carded(shops: Shops, trained_shops: tuple[Shops, TrainedModel], tmp_path: Path) -> tuple[Shops, ModelCard]:
    """The shops with version 1 released, and its card."""
    trained = trained_shops[1]
    (tmp_path / "words.md").write_text(WORDS)
    spec = shops.spec.model_copy(update={"card": "words.md"})
    evaluation = shops.evaluate(trained)
    version = register(spec, trained, evaluation, tracker=shops.tracker)
    card = write_card(spec, tmp_path, trained, evaluation, version, tracker=shops.tracker)
    promote(shops.settings, spec, version, evaluation, tracker=shops.tracker, by="ann")
    return shops, card


class Page(HTMLParser):
    """Anchors and links of a page, its text, and what it would load or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids, self.links, self.loads, self.text = set[str](), set[str](), list[str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if named.get("id"):
            self.ids.add(str(named["id"]))
        if tag == "a":
            self.links.add(str(named["href"]))
        if tag in {"script", "iframe", "img", "link"} or "src" in named:
            self.loads.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_card_has_what_was_recorded(carded: tuple[Shops, ModelCard]) -> None:
    shops, card = carded
    assert load_card(shops.store, "order_late", 1) == card
    assert card.provenance.tables["raw/orders"] == 0
    assert card.quality is not None
    assert card.quality.metric == "roc_auc"
    assert card.quality.metrics["roc_auc"] > card.quality.naive_metrics["roc_auc"]
    markdown = card_markdown(shops.store, card)
    assert "> # Limits\n>\n> Not for <orders> abroad & | never for groceries." in markdown
    for said in (
        f"{card.quality.metrics['roc_auc']:.4g}",
        f"{card.provenance.training_rows:,}",
        "`raw/orders` version 0",
        "shop_load__load",
        "Promotion by ann",
        card.digest,
    ):
        assert said in markdown


def test_a_card_has_both_intervals_the_power_and_every_guardrail(carded: tuple[Shops, ModelCard]) -> None:
    shops, card = carded
    quality = card.quality
    assert quality is not None
    assert quality.interval is not None
    assert quality.within_blocks is not None
    assert quality.within_blocks.gain == quality.interval.gain
    assert [one.name for one in quality.guardrails][:4] == ["rows", "class_rows", "blocks", "slices of shop"]
    markdown, page = card_markdown(shops.store, card), card_html(shops.store, card)
    for said in (quality.power_in_words, *(one.reason for one in quality.guardrails)):
        assert said
        assert said in markdown
        assert said in Page(page).text
    assert "If the same blocks came again with other rows" in markdown
    assert page.count('class="reach"') == 2, "both intervals are drawn"
    assert "decides: for other days" in page


def test_a_card_of_an_earlier_engine_is_read_and_shown(carded: tuple[Shops, ModelCard]) -> None:
    shops, _ = carded
    path = card_path(shops.store, "order_late", 1)
    old = json.loads(path.read_bytes())
    for key in ("within_blocks", "power", "power_in_words", "guardrails"):
        del old["quality"][key]
    path.write_text(json.dumps(old))
    card = load_card(shops.store, "order_late", 1)
    assert "Guardrails" not in card_markdown(shops.store, card)
    assert card_html(shops.store, card).count('class="reach"') == 1
    with pytest.raises(LookupError, match="no version of order_late has a measured power"):
        measured_power(shops.store, "order_late")
    assert power_beforehand(shops.store, "order_late") is None


def test_power_is_told_in_a_terminal(carded: tuple[Shops, ModelCard], monkeypatch: pytest.MonkeyPatch) -> None:
    shops, card = carded
    assert card.quality is not None
    power = card.quality.power
    assert power is not None
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))
    run = CliRunner().invoke
    told = run(app, ["models", "power", "order_late", "--blocks", "100", "--gain", "0.05"]).output
    assert f"{power.blocks} days detect {power.detectable:+.4f} with 80% power" in told
    assert "100 days detect" in told
    assert "detect a gain" not in told
    assert "needs 7 days to pass" in run(app, ["models", "power", "order_late", "--gain", "9"]).output, "min_blocks"
    assert "A true gain of +0.0500 needs " in told
    assert "No version was compared with a champion yet" in told
    assert (
        "does not pass in 80% of cases with any number of them"
        in run(app, ["models", "power", "order_late", "--gain=-0.1"]).output
    )
    said = power_beforehand(shops.store, "order_late")
    assert said is not None
    assert f"{power.detectable:+.4f} in roc_auc with 80% power" in said
    for arguments, message in (
        (
            ["order_lat"],
            "no model 'order_lat' has a registered version; there are order_late. Did you mean 'order_late'?",
        ),
        (["Order Late"], "Did you mean 'order_late'?"),
        (["order_late", "--gain", "nan"], "gain: wanted a finite number, found nan"),
    ):
        failed = run(app, ["models", "power", *arguments])
        assert (failed.exit_code, message in failed.output) == (1, True), failed.output
    assert power_beforehand(shops.store, "../x") is None


def test_the_page_needs_nothing_else_and_escapes_what_people_wrote(carded: tuple[Shops, ModelCard]) -> None:
    shops, card = carded
    page = Page(card_html(shops.store, card))
    assert page.loads == []
    assert WORDS in page.text
    assert {link for link in page.links if link.startswith("#")} <= {f"#{name}" for name in page.ids}


@pytest.mark.parametrize("section", sorted({section for *_, sections in ANNEX_IV for section in sections}))
def test_what_the_documentation_points_to_is_in_both_forms(carded: tuple[Shops, ModelCard], section: str) -> None:
    shops, card = carded
    assert f"\n## {section}\n" in card_markdown(shops.store, card)
    assert section in Page(card_html(shops.store, card)).text


def test_it_is_in_mlflow_and_in_a_terminal(
    carded: tuple[Shops, ModelCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shops, card = carded
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))
    run_id = shops.tracker.client.get_model_version("order_late", "1").run_id
    assert [item.path for item in shops.tracker.client.list_artifacts(run_id, "model_card")] == [
        "model_card/card.html",
        "model_card/card.md",
    ]
    run = CliRunner().invoke
    assert run(app, ["models", "card", "order_late"]).output == card_markdown(shops.store, card)
    target = tmp_path / "card.html"
    assert run(app, ["models", "card", "order_late", "1", "--to", str(target)]).exit_code == 0
    assert target.read_text() == card_html(shops.store, card)
    for arguments, message in (
        (["order_late", "7"], "version 7 has no card; versions with one: 1"),
        (["never_there"], "no card; versions with one: none"),
        (["order_late", "1", "--to", "card.pdf"], "ends in .html or .md"),
        (["Order Late"], "wanted lower-case letters"),
    ):
        failed = run(app, ["models", "card", *arguments])
        assert (failed.exit_code, message in failed.output) == (1, True), failed.output


def test_a_damaged_card_is_told(carded: tuple[Shops, ModelCard]) -> None:
    shops, card = carded
    card_path(shops.store, "order_late", 1).write_text("{")
    with pytest.raises(DocumentUnreadable, match="not a model card"):
        load_card(shops.store, "order_late", 1)
    store_card(shops.store, card)
    assert load_card(shops.store, "order_late", 1) == card


def test_it_names_the_approver_what_people_said_and_what_was_lost(
    carded: tuple[Shops, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    shops, card = carded
    digest = shops.store.versions("order_late")[1]
    assert "No approval of a person is needed" in card_markdown(shops.store, card)
    shops.store.approvals.set_policy("order_late", ApprovalPolicy())
    assert "Nobody has asked for its approval" in card_markdown(shops.store, card)
    shops.store.approvals.request("order_late", 1, digest, revision=1, by="ann", comment="passed the gate")
    shops.store.approvals.decide("order_late", 1, by="bob", approve=True, comment="slices | fine")
    shops.store.notes.add("order_late", 1, [NoteWish(action="comment", text="# odd <on> Sundays")], by="eve")
    markdown, page = card_markdown(shops.store, card), Page(card_html(shops.store, card))
    for said in ("Approval by bob, ", "slices | fine", "1. eve, ", "> # odd <on> Sundays"):
        assert said in markdown
    assert "# odd <on> Sundays" in page.text
    assert f"the table training_sets/order_late version {card.provenance.training_set_version}" in page.text
    assert "No longer readable" not in markdown
    shutil.rmtree(shops.settings.home / "lake" / "raw" / "orders")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))
    lost = "so that this version cannot be made again: `raw/orders` version 0. They were vacuumed or deleted."
    assert lost in CliRunner().invoke(app, ["models", "card", "order_late", "1"]).output
    assert lost not in card_markdown(shops.store, card)  # as it was last noted, for those who do not read the lake
    assert note_lost_data(shops.lake, shops.store) == {"raw/orders": [0]}
    assert lost in card_markdown(shops.store, card)
