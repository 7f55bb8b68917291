"""The column lineage in the metadata of assets: filters, look-ups, versions; what cannot be traced fails no step."""

import dagster as dg

from ml_platform.orchestration.lineage import (
    HOW,
    KEY,
    WRONG,
    model_lineage,
    online_lineage,
    predictions_lineage,
    training_set_lineage,
    view_lineage,
)


def deps(metadata, column):
    return {(dep.asset_key.to_user_string(), dep.column_name) for dep in metadata[KEY].deps_by_column[column]}


def test_a_view_shows_the_columns_of_its_filters_too(shops):
    view = shops.views["shop_load"]
    filtered = view.model_copy(update={"sql": f"{view.sql} WHERE mood <> 'closed'"})
    metadata = view_lineage(filtered, shops.lake)
    assert deps(metadata, "load") == {("raw/loads", "load"), ("raw/loads", "mood")}
    assert metadata[HOW].value["load"]["raw.loads.mood"] == ["filter"]


def test_a_training_set_shows_spine_and_look_ups(shops):
    metadata = training_set_lineage(shops.spec, shops.folder, shops.views, shops.lake)
    looked_up = deps(metadata, "shop_load__load")
    assert {
        ("features/shop_load", "load"),
        ("features/shop_load", "shop"),
        ("features/shop_load", "event_time"),
    } <= looked_up
    assert ("raw/orders", "shop") in looked_up  # the key, through the set's own column
    assert ("raw/orders", "weight") in deps(metadata, "heavy")


def test_models_predictions_and_online_values_have_theirs(shops):
    spec, name = shops.spec, shops.spec.name
    assert (f"{name}/training_set", spec.target) in deps(model_lineage(spec, shops.folder, shops.views), "score")
    predictions = predictions_lineage(spec, shops.folder, shops.views, shops.lake, 3)
    assert (f"{name}/release", "score") in deps(predictions, "score")
    online = online_lineage(shops.views["shop_load"], pushed=False)
    assert ("features/shop_load", "load") in deps(online, "load")
    for metadata in (predictions, online):
        assert isinstance(metadata[KEY], dg.TableColumnLineage)


def test_what_cannot_be_traced_is_said_and_fails_nothing(shops):
    broken = shops.views["shop_load"].model_copy(update={"sql": "SELECT no_such_column FROM raw.loads"})
    assert "no_such_column" in view_lineage(broken, shops.lake)[WRONG]
