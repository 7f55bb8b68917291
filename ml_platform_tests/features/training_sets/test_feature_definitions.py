"""A version's own definitions give what its training set has, whatever the project's files say later."""

from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
from polars.testing import assert_frame_equal

from ml_platform.features.training_sets.build import feature_rows
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions, unlike_features
from ml_platform.registry.digests import check_bundle, model_digest
from ml_platform.registry.manifest import Derived
from ml_platform_tests.toy_world import START

SPAN = (START + timedelta(days=20), START + timedelta(days=30))


def test_a_manifest_gives_the_rows_that_the_files_gave(trained_shops) -> None:
    shops, trained = trained_shops
    manifest = shops.store.load_manifest(trained.digest)
    of_files = FeatureDefinitions.of_spec(shops.spec, shops.folder)
    of_version = FeatureDefinitions.of_version(manifest, shops.spec, shops.views)
    given = (shops.lake, shops.spec, shops.folder, shops.views)
    now, then = (feature_rows(*given, definitions, *SPAN) for definitions in (of_files, of_version))
    assert then.height > 500
    assert_frame_equal(then, now)
    assert feature_rows(*given, of_version, SPAN[0], SPAN[0]).schema == then.schema


def test_derived_features_of_every_kind_and_rows_with_nulls(trained_shops) -> None:
    shops, trained = trained_shops
    when, name, shop = ({"op": "column", "name": name} for name in ("ordered_at", "weight", "shop"))
    hour = {"op": "literal", "type": "duration", "value": 3_600_000_000}
    derived = (
        Derived(name="later", type="timestamp", tree={"op": "add", "args": [when, hour]}),
        Derived(name="one", type="integer", tree={"op": "literal", "value": 1}),
        Derived(name="light", type="boolean", tree={"op": "less", "args": [name, {"op": "literal", "value": 9.5}]}),
        Derived(name="half", type="number", tree={"op": "divide", "args": [name, {"op": "literal", "value": 2}],
                                                   "by_constant": True}),
        Derived(name="word", type="string", tree={"op": "str.to_uppercase", "args": [shop]}),
    )  # fmt: skip
    manifest = msgspec.structs.replace(shops.store.load_manifest(trained.digest), derived=derived, lookups=())
    typed = pl.DataFrame(
        {"shop": ["a", None], "weight": [19.0, None], "ordered_at": [START, START + timedelta(hours=1)]},
        schema_overrides={"ordered_at": pl.Datetime("us", "UTC")},
    )
    found = FeatureDefinitions.of_version(manifest, shops.spec, {}).derive(typed).collect()
    assert found.drop(typed.columns).to_dicts() == [
        {"later": START + timedelta(hours=1), "one": 1, "light": False, "half": 9.5, "word": "A"},
        {"later": START + timedelta(hours=2), "one": 1, "light": None, "half": None, "word": None},
    ]
    assert found.schema["later"] == pl.Datetime("us", "UTC")


def test_features_are_unlike_by_what_they_are_made_of(trained_shops) -> None:
    shops, trained = trained_shops
    manifest = shops.store.load_manifest(trained.digest)
    looked_up = ["shop_load__load", "shop_load__mood"]

    def changed(part: str, name: str, **changes: Any) -> list[str]:
        parts = [
            msgspec.structs.replace(one, **changes)
            if name in {getattr(one, "name", ""), getattr(one, "view", "")}
            else one
            for one in getattr(manifest, part)
        ]
        return unlike_features(manifest, msgspec.structs.replace(manifest, **{part: tuple(parts)}))

    assert changed("derived", "heavy", description="In other words.") == []
    assert changed("derived", "heavy", tree={"op": "is_null", "args": [{"op": "column", "name": "weight"}]}) == [
        "heavy"
    ]
    assert changed("inputs", "weight", default=0.0) == ["heavy", "weight"]
    assert changed("inputs", "channel", type="integer") == ["channel"]
    assert changed("inputs", "shop", type="integer") == ["shop", *looked_up]
    assert changed("inputs", "order_id", type="integer") == []
    assert changed("lookups", "shop_load", view_hash="0" * 64) == looked_up
    assert changed("lookups", "shop_load", features=("shop_load__load",)) == ["shop_load__mood"]
    assert unlike_features(manifest, msgspec.structs.replace(manifest, as_of=None)) == looked_up


def test_bundles_from_before_look_ups_told_of_knowledge_time_stay_valid(trained_shops) -> None:
    shops, trained = trained_shops
    files = shops.store.read_bundle(trained.digest)
    manifest = check_bundle(files, trained.digest)
    old = msgspec.json.decode(files["manifest.json"])
    for lookup in old["lookups"]:
        del lookup["knowledge_time"]
    assert msgspec.convert(old, type(manifest)).lookups == manifest.lookups
    told = tuple(msgspec.structs.replace(lookup, knowledge_time=True) for lookup in manifest.lookups)
    same = msgspec.structs.replace(manifest, lookups=told)
    assert model_digest(files["model.onnx"], same) == manifest.model_digest
