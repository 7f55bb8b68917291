"""A retired model serves nowhere, its versions are archived, and who did it and why is written down."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform import project as projects
from ml_platform.cli import app
from ml_platform.features.views.load import load_views
from ml_platform.promotion.promote import promote, promote_version
from ml_platform.promotion.retire import retire, use_of
from ml_platform.promotion.versions import register
from ml_platform.registry.ledger import read_releases
from ml_platform.registry.manifest import Target
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops

NAME = "order_late"


@pytest.fixture
def released(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Shops:
    """Version 1 serves, on an endpoint of another name as well; version 2, the same bundle, never served."""
    trained = trained_shops[1]
    evaluation = shops.evaluate(trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    shops.store.publish(NAME, [Target(version=1, digest=version.digest)], reason="try", by="ann", own_name="trial")
    client = shops.tracker.client
    client.create_model_version(NAME, version.model_uri, tags={"bundle_digest": version.digest})
    shops.store.register_version(NAME, 2, version.digest)
    return shops


def stages(shops: Shops) -> dict[str, str]:
    return {
        str(one.version): one.tags["stage"] for one in shops.tracker.client.search_model_versions(f"name = '{NAME}'")
    }


def is_retired(shops: Shops) -> bool:
    document = shops.store.document(NAME)
    assert document is not None
    return document.is_retired


def test_every_endpoint_is_retired_and_the_versions_are_archived(released: Shops) -> None:
    documents = retire(released.settings, NAME, by="bob", reason="replaced")
    assert {document.name for document in documents} == {NAME, "trial"}
    assert released.store.endpoints() == {}
    assert is_retired(released)
    assert stages(released) == {"1": "Archived", "2": "Archived"}
    assert released.tracker.client.get_registered_model(NAME).aliases == {}
    entry = read_releases(released.lake, NAME).filter(endpoint=NAME).tail(1).row(0, named=True)
    assert (entry["action"], entry["by"], entry["reason"]) == ("retirement", "bob", "replaced")
    assert (entry["from_version"], entry["to_version"]) == (1, None)
    assert [one.revision for one in released.store.history(NAME)] == [1, 2]


def test_a_second_time_changes_nothing_and_a_promotion_puts_it_back(released: Shops) -> None:
    first = retire(released.settings, NAME, by="bob", reason="replaced")
    assert retire(released.settings, NAME, by="eve", reason="again") == first
    promote_version(released.settings, NAME, 1, by="ann", reason="needed after all")
    assert not is_retired(released)
    assert stages(released) == {"1": "Production", "2": "Staging"}


def test_a_model_that_never_served_is_retired_too(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> None:
    register(shops.spec, trained_shops[1], shops.evaluate(trained_shops[1]), tracker=shops.tracker)
    assert stages(shops) == {"1": "Staging"}
    retire(shops.settings, NAME, by="bob", reason="never used")
    assert stages(shops) == {"1": "Archived"}


def test_what_uses_it_is_said(released: Shops, tmp_path: Path) -> None:
    view = tmp_path / "views" / "late_before.sql"
    view.parent.mkdir()
    view.write_text(
        "/*\ndescription: Newest score.\nowner: a@example.com\nentity: [shop]\n"
        "columns: {score: {type: number, description: As given.}}\n*/\n"
        "SELECT shop, event_time, score FROM predictions.order_late\n"
    )
    views = {**released.views, **load_views(view.parent)}
    use = use_of(released.settings, NAME, {released.folder / "defs.yaml": released.spec}, views)
    assert use.endpoints == {NAME: "version 1 (live 100%)", "trial": "version 1 (live 100%)"}
    assert use.versions == (1, 2)
    assert use.readers == ("feature view late_before (predictions/order_late)",)
    assert any(one.startswith("training (") for one in use.schedules)
    assert set(use.looks_up) == {lookup.view for lookup in released.spec.lookups}
    assert "training_sets/order_late" in use.tables
    with pytest.raises(LookupError, match="no model is called 'orders'; there are order_late"):
        use_of(released.settings, "orders", {}, {})


@pytest.fixture
def run(released: Shops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `models retire` in a project that no longer declares the model."""
    project = tmp_path / "project"
    (project / "shop" / "defs" / "features").mkdir(parents=True)
    (project / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    monkeypatch.setenv(projects.VARIABLE, str(project))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(released.settings.home))

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["models", "retire", *arguments])

    return command


def test_the_command_shows_first_and_refuses_while_it_serves(run: Any, released: Shops) -> None:
    shown = run(NAME)
    assert (shown.exit_code, "Nothing was changed. To retire it: --yes --force" in shown.output) == (1, True)
    assert "order_late: version 1 (live 100%)" in shown.output
    refused = run(NAME, "--yes")
    assert (refused.exit_code, "order_late serves it; trial serves it" in refused.output) == (1, True)
    assert released.store.endpoint(NAME) is not None
    done = run(NAME, "--yes", "--force", "--reason", "replaced")
    assert done.exit_code == 0, done.output
    assert "order_late is retired (revision 2); the server answers 410." in done.output
    assert "is retired already" in run(NAME).output
    assert "order_late: retired, revision 2" in CliRunner().invoke(app, ["status"]).output
    assert "no model is called 'orders'" in run("orders", "--yes").output
