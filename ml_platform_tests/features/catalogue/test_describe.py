"""Definitions of views are recorded, mismatches refused with what to do, and the catalogue shows it all."""

import json
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.features.catalogue.describe import ViewState, describe_views
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import publish_view
from ml_platform.features.training_sets.build import build_training_set
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.recorded_definitions import TABLE, ViewChanged, computed_hash
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.batch import score_window
from ml_platform.registry.manifest import Target
from ml_platform_tests.toy_world import DAYS, START, Shops

NAME = "shop_load"


@pytest.fixture
def changed(shops: Shops) -> FeatureView:
    """The view with another meaning; its table is still the old one's."""
    return shops.views[NAME].model_copy(update={"sql": shops.views[NAME].sql + " WHERE load > 0"})


def describe(shops: Shops, view: FeatureView) -> ViewState:
    with open_online_store(shops.settings.online_uri) as online:
        [state] = describe_views(shops.lake, {NAME: view}, [shops.spec], online=online, releases=shops.store)
    return state


def test_one_record_per_change_of_the_definition(shops, changed):
    old = shops.views[NAME]
    first = shops.lake.read(TABLE).collect()
    assert first.select("view", "hash", "version").rows() == [(NAME, old.hash, 0)]
    compute_view(shops.lake, old)
    assert shops.lake.read(TABLE).collect().equals(first)
    compute_view(shops.lake, changed)
    assert [computed_hash(shops.lake, NAME, version) for version in (0, 1, 2)] == [old.hash, old.hash, changed.hash]
    assert computed_hash(shops.lake, NAME) == changed.hash
    assert computed_hash(shops.lake, "unheard_of") is None


def test_rows_of_an_old_definition_are_neither_trained_on_nor_published_under_the_new_one(shops, changed):
    told = rf"feature view '{NAME}': version 0 of features/{NAME} was computed by .* materialise features/{NAME} again"
    with pytest.raises(ViewChanged, match=told):
        build_training_set(shops.lake, shops.spec, shops.folder, {NAME: changed})
    with open_online_store(shops.settings.online_uri) as online:
        with pytest.raises(ViewChanged, match=told):
            publish_view(shops.lake, changed, online)
        assert online.view_hash(NAME) is None
        compute_view(shops.lake, changed)
        assert publish_view(shops.lake, changed, online).rows > 0
    assert build_training_set(shops.lake, shops.spec, shops.folder, {NAME: changed}).rows > 0


def release(shops: Shops, digest: str) -> None:
    shops.store.publish(shops.spec.name, [Target(version=3, digest=digest, share=1.0)], reason="test", by="test")


def test_a_champion_scores_no_rows_of_another_definition(shops, changed, trained_shops):
    release(shops, trained_shops[1].digest)
    compute_view(shops.lake, changed)
    span = (START + timedelta(days=60), START + timedelta(days=61))
    told = (
        rf"order_late: the definition of '{NAME}' \(trained on .*\) changed since the version .* run order_late_retrain"
    )
    with pytest.raises(ViewChanged, match=told):
        score_window(shops.lake, shops.spec, shops.folder, {NAME: changed}, shops.store, *span)


def test_a_view_is_described_with_its_users_and_its_rows(shops):
    state = describe(shops, shops.views[NAME])
    rows = shops.lake.read(f"features/{NAME}").sort("event_time").collect()
    assert (state.rows, state.newest, state.models) == (rows.height, START + timedelta(days=DAYS - 1), ("order_late",))
    assert state.problems == ()
    assert state.newest_online is None
    load, mood = state.features
    assert (load.name, load.null_share, mood.null_share) == ("load", 0.0, 0.0)
    assert load.last in rows.filter(event_time=state.newest)["load"].to_list()


def test_every_place_that_stands_on_another_definition_is_named(shops, changed, trained_shops):
    release(shops, trained_shops[1].digest)
    old = shops.views[NAME]
    with open_online_store(shops.settings.online_uri) as online:
        publish_view(shops.lake, old, online)
    assert describe(shops, old).problems == ()
    assert describe(shops, changed).problems == (
        f"its table was computed by the definition {old.hash[:12]}: materialise features/{NAME}",
        f"the online store has the definition {old.hash[:12]}: materialise online/{NAME}",
        f"version 3 of order_late was trained on {old.hash[:12]}: run order_late_retrain",
    )
    unknown = changed.model_copy(update={"name": "shop_mood"})
    [state] = describe_views(shops.lake, {"shop_mood": unknown}, [shops.spec])
    assert (state.rows, state.null_share, state.models) == (None, None, ())
    assert state.problems == ("not computed yet: materialise features/shop_mood",)


@pytest.fixture
def run(shops: Shops, monkeypatch: pytest.MonkeyPatch):
    """Run the command on the shops' home and the views of `ml_platform/defs/features`."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))
    return lambda *arguments: CliRunner().invoke(app, ["features", *arguments])


def test_the_command_lists_the_projects_views(run):
    listed = run()
    assert listed.exit_code == 0, listed.output
    [row] = [line for line in listed.output.splitlines() if line.startswith("origin_weather ")]
    assert "arrival_minutes, flight_delay" in row
    assert "not computed" in row
    assert "origin_weather: not computed yet: materialise features/origin_weather" in listed.output


def test_the_command_shows_one_view_and_knows_when_there_is_none(run):
    shown = run("origin_weather")
    assert "Air temperature." in shown.output
    assert "°F" in shown.output
    assert "domain: weather, refresh: hourly" in shown.output
    documents = json.loads(run("origin_weather", "--format", "json").output)
    assert [document["name"] for document in documents] == ["origin_weather"]
    failed = run("wether")
    assert failed.exit_code == 1
    assert "There is no feature view 'wether'; there are:" in failed.stderr
