"""Look-ups of streamed views: each row of a request takes the values of its own instant."""

import random
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from ml_platform.features.expressions.columns import Columns
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import OnlineStore, PushedRow, to_micros
from ml_platform.features.streaming.feature_stream import FeatureStream
from ml_platform.features.streaming.lookup import rows_at
from ml_platform.features.streaming.timeline import stream_view
from ml_platform.features.views.view import FeatureView
from ml_platform.registry.manifest import Feature, Manifest, ViewLookup
from ml_platform.serving.inputs.feature_lookup import Lookups, ViewsDiffer
from ml_platform_tests.features.streaming.till_views import SECOND, START, Clock, sale, views
from ml_platform_tests.serving import releases


def manifest(view: FeatureView, names: list[str]) -> Manifest:
    base = msgspec.json.decode(releases.bundle(1)["manifest.json"], type=Manifest)
    columns = tuple(f"till__{name}" for name in names)
    lookup = ViewLookup(
        view="till", view_hash=view.hash, keys={"shop": "shop"}, features=columns, ttl_seconds=86_400.0, streamed=True
    )
    features = tuple(Feature(name=name, kind="numeric", source="view:till") for name in columns)
    return msgspec.structs.replace(base, lookups=(lookup,), features=features)


@pytest.fixture
def till(tmp_path) -> FeatureView:
    return views(tmp_path / "views", names=["till"])[0]


@pytest.fixture
def store(tmp_path, settings, lake, till):
    """Sales of three shops, and a row that was pushed to one of them later."""
    clock = Clock(100)
    with open_online_store(f"sqlite:///{tmp_path}/online.db") as opened:
        with FeatureStream(lake, [till], opened, tmp_path / "streams", clock=clock) as stream:
            stream.take([sale(n, 5 * n, shop="abc"[n % 3], amount=float(n)) for n in range(20)])
        opened.write("till", ("shop",), _none(till), till.event_time, view_hash=till.hash)
        values = tuple(70 if name == "sales_10s" else None for name in till.columns)
        opened.push("till", till.hash, [PushedRow(("b",), START + SECOND * 101, values)])
        yield opened


def _none(view: FeatureView) -> Any:
    import polars as pl

    names = {name: pl.Series([], dtype=pl.Float64) for name in view.columns}
    times = pl.Series([], dtype=pl.Datetime("us", "UTC"))
    return pl.DataFrame({"shop": pl.Series([], dtype=pl.String), view.event_time: times, **names})


def test_both_ways_of_looking_up_take_the_values_of_each_row_s_instant(store, till):
    chance, names = random.Random(2), ["sales_10s", "revenue_2m", "largest_2m"]
    lookups = Lookups(manifest(till, names), store)
    lookups.check()
    for spread in (0, 3, 400):
        shops = [chance.choice(["a", "b", "c", "unknown", None]) for _ in range(40)]
        instants = [START + SECOND * (100 + chance.uniform(0, spread)) for _ in shops]
        wanted = [_wanted(store, shop, at, names) for shop, at in zip(shops, instants, strict=True)]
        rows: list[dict[str, Any]] = [{"shop": shop} for shop in shops]
        missing = lookups.add(rows, instants)
        assert [[row[f"till__{name}"] for name in names] for row in rows] == wanted
        columns = Columns({"shop": list(shops)}, {"shop": "string"}, len(shops))
        [found], same = lookups.find(columns, np.array([to_micros(at) for at in instants]))
        assert [list(values) for values in zip(*(found.objects(f) for f in names), strict=True)] == wanted
        assert missing == same == {"till": sum(shop in {"unknown", None} for shop in shops)}


def _wanted(store: OnlineStore, shop: str | None, at: Any, names: list[str]) -> list[Any]:
    [row] = rows_at(store, "till", [(shop,)], at)
    return [None if row is None else row.values[name] for name in names]


def test_the_ttl_counts_from_the_last_change(store, till):
    lookups = Lookups(manifest(till, ["sales_10s"]), store)
    last = START + SECOND * 95 + timedelta(seconds=120)  # when the last sale of c or b left the longest window
    rows: list[dict[str, Any]] = [{"shop": "a"}, {"shop": "a"}]
    first_gone = last + timedelta(days=1, seconds=1)
    assert lookups.add(rows, [first_gone - timedelta(seconds=20), first_gone]) == {"till": 1}
    assert [row["till__sales_10s"] for row in rows] == [0, None]


def test_a_stream_of_another_definition_is_refused(store, till):
    other = till.model_copy(update={"ttl": timedelta(days=3)})
    lookups = Lookups(manifest(other, ["sales_10s"]), store)
    with pytest.raises(ViewsDiffer, match=f"'{stream_view('till')}' is {till.hash[:12]} in the online store"):
        lookups.check()


def test_before_the_stream_begins_what_was_published_counts(tmp_path, till):
    with open_online_store(f"sqlite:///{tmp_path}/other.db") as store:
        store.write("till", ("shop",), _none(till), till.event_time, view_hash=till.hash)
        lookups = Lookups(manifest(till, ["sales_10s"]), store)
        lookups.check()
        rows: list[dict[str, Any]] = [{"shop": "a"}]
        assert lookups.add(rows, [START]) == {"till": 1}
