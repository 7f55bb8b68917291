"""What people say is in the ledger and in MLflow, once, whoever said it and whatever was killed between."""

import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance.ledger_check import verify_ledger
from ml_platform.promotion.follow_notes import follow_notes, notes_behind
from ml_platform.promotion.promote import promote_version
from ml_platform.promotion.shown_notes import recorded_part
from ml_platform.promotion.versions import register
from ml_platform.registry.ledger import read_ledger
from ml_platform.registry.version_notes import NoteWish
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops

NAME = "order_late"


@pytest.fixture
def registered(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Shops:
    """Version 1 serves, and version 2 is the same bundle."""
    trained = trained_shops[1]
    version = register(shops.spec, trained, shops.evaluate(trained), tracker=shops.tracker)
    shops.tracker.client.create_model_version(NAME, version.model_uri, tags={"bundle_digest": version.digest})
    shops.store.register_version(NAME, 2, version.digest)
    promote_version(shops.settings, NAME, 1, by="ann", reason="first")
    return shops


def said(shops: Shops) -> list[tuple[str, int | None, str, str]]:
    entries = read_ledger(shops.lake, NAME).filter(pl.col("revision").is_null())
    rows = entries.select("action", "to_version", "by", "reason").rows()
    return [row for row in rows if row[0] != "registration"]


def test_a_terminal_says_it_and_ledger_and_mlflow_have_it(
    registered: Shops, monkeypatch: pytest.MonkeyPatch, trained_shops: tuple[Shops, TrainedModel]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(registered.settings.home))
    monkeypatch.setattr("ml_platform.promotion.notes_cli.promoter", lambda *_: "ann")

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["models", *words])
        assert result.exit_code == code, result.output
        return result.output

    client, before = registered.tracker.client, registered.tracker.client.get_model_version(NAME, "1").description
    assert "1. ann" in run("comment", NAME, "2", "--text", "odd on Sundays")
    run("tag", NAME, "2", "--set", "risk=low")
    run("describe", NAME, "--text", "Late orders.")
    assert run("archive", NAME, "2", "--reason", "wrong prices").endswith("version 2 is Archived\n")
    version, model = client.get_model_version(NAME, "2"), client.get_registered_model(NAME)
    assert (version.tags["risk"], version.tags["stage"]) == ("low", "Archived")
    assert "odd on Sundays" in version.description
    assert model.description.endswith("**Said by people**\n\nLate orders.")
    assert {name: int(number) for name, number in model.aliases.items()} == {"champion": 1}
    assert client.get_model_version(NAME, "1").description == before
    assert said(registered) == [
        ("comment", 2, "ann", "odd on Sundays"),
        ("tag", 2, "ann", "risk: low"),
        ("description", None, "ann", "Late orders."),
        ("archiving", 2, "ann", "Archived: wrong prices"),
    ]
    shown = run("show", NAME, "2")
    for words in ("version 2: Archived", "tags: risk=low", "Archived by ann", "wrong prices", "odd on Sundays"):
        assert words in shown
    assert "Late orders." in run("show", NAME)
    run("tag", NAME, "2", "--remove", "risk")
    assert "risk" not in client.get_model_version(NAME, "2").tags
    assert "None" in run("unarchive", NAME, "2", "--reason", "prices were right")
    for wrong, message in (
        (("unarchive", NAME, "1", "--reason", "x"), "version 1 was not archived by anybody"),
        (("stage", NAME, "1", "archived", "--reason", "x"), "it answers requests of order_late"),
        (("show", NAME, "9"), "order_late: no version 9 is registered; there are 1, 2"),
        (("comment", "nope", "--text", "x"), "no model 'nope' has a registered version; there are order_late"),
        (("tag", NAME, "2", "--set", "risk"), "--set: wanted name=value, found 'risk'"),
        (("comment", NAME, "2", "--answer", "1"), "--answer wants --text"),
    ):
        assert message in run(*wrong, code=1)
    # Registered again, as by a run that was repeated, it keeps what people said.
    run("comment", NAME, "1", "--text", "fine")
    register(registered.spec, trained_shops[1], registered.evaluate(trained_shops[1]), tracker=registered.tracker)
    described = client.get_model_version(NAME, "2").description or ""
    assert "odd on Sundays" in described
    assert recorded_part(client.get_model_version(NAME, "1").description) == before


def test_what_was_said_over_http_or_before_a_kill_is_made_up_for(registered: Shops) -> None:
    registered.store.notes.add(NAME, 1, [NoteWish(action="comment", text="first")], by="bob")
    follow_notes(registered.settings)
    registered.store.notes.add(NAME, 1, [NoteWish(action="comment", text="second")], by="eve")
    assert [(notes.version, len(notes.events)) for notes in notes_behind(registered.store)] == [(1, 2)]
    (registered.store.folder / "followed" / ".notes" / NAME / "1.json").unlink()  # killed before it was noted
    for _ in range(2):
        follow_notes(registered.settings)
        assert said(registered) == [("comment", 1, "bob", "first"), ("comment", 1, "eve", "second")]
        assert notes_behind(registered.store) == []
    assert verify_ledger(registered.lake, registered.settings)[1] == []
    assert (registered.tracker.client.get_model_version(NAME, "1").description or "").count("second") == 1


def test_what_is_said_at_once_is_one_commit_of_the_ledger(registered: Shops) -> None:
    wishes = [NoteWish(action="tag", name=name, text="yes") for name in ("checked", "fast", "small")]
    registered.store.notes.add(NAME, 2, wishes, by="ann")
    before, version = said(registered), registered.lake.version("governance/ledger")
    follow_notes(registered.settings, NAME)
    assert registered.lake.version("governance/ledger") == version + 1
    assert said(registered)[len(before) :] == [
        ("tag", 2, "ann", f"{name}: yes") for name in ("checked", "fast", "small")
    ]
    assert verify_ledger(registered.lake, registered.settings)[1] == []
    follow_notes(registered.settings, NAME)
    assert registered.lake.version("governance/ledger") == version + 1
