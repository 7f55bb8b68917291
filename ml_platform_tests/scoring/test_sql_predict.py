"""`predict` in SQL gives what batch scoring gives, by the contract that serving has."""

from datetime import timedelta

import polars as pl
import pytest

from ml_platform.inference.batch import score_window
from ml_platform.lake.query.sql import query
from ml_platform.lake.query.sql_gate import OutsideTheLake
from ml_platform.registry.manifest import Target
from ml_platform.scoring.sql_predict import PredictFunctions, RowsRefused
from ml_platform_tests.toy_world import START, Shops, multiclass_spec


@pytest.fixture
def ask(world):
    def run(sql: str, **options) -> pl.DataFrame:
        functions = PredictFunctions(world.shops.settings, lambda: world.shops.views)
        return query(world.shops.lake, sql, functions=functions, **options)

    return run


def test_predictions_and_scores_are_those_of_batch_scoring(world, ask):
    shops = world.shops
    score_window(shops.lake, shops.spec, shops.folder, shops.views, shops.store, START, START + timedelta(days=90))
    both = ask(
        "SELECT predict('order_late', o), predict_score('order_late@v4', o) AS mine, p.prediction, p.score "
        "FROM raw.orders AS o JOIN predictions.order_late AS p ON p.id = o.order_id"
    )
    assert both.columns == ["predict", "mine", "prediction", "score"]
    assert both.height == 6000
    assert (both["predict"] == both["prediction"]).all()
    assert (both["mine"] - both["score"]).abs().max() < 1e-12
    noted = b"".join(path.read_bytes() for path in shops.settings.audit_dir.glob("*.jsonl"))
    assert b"order_late version 4: 12000 rows, 0 refused" in noted


def test_it_is_an_expression_like_any_other(ask):
    rows = ask(
        "WITH few AS (SELECT * FROM raw.orders WHERE weight IS NOT NULL LIMIT 3000), "
        "scored AS (SELECT shop, predict_score('order_late', few) AS p FROM few) "
        "SELECT shop, avg(p) AS mean FROM scored WHERE p > 0.1 GROUP BY shop ORDER BY shop"
    )
    assert rows.height == 8
    one = ask(
        "SELECT max(predict_score('order_late', {'order_id': 'x', 'shop': 'shop-1', 'channel': NULL, 'weight': 3, "
        "'ordered_at': TIMESTAMPTZ '2024-02-01T10:00Z'})) AS p"
    ).item()
    assert 0 < one < 1
    assert ask("SELECT predict('order_late', o) FROM raw.orders AS o LIMIT 0").is_empty()


def test_a_row_that_serving_would_refuse_ends_the_query_or_is_null(ask):
    odd = (
        "WITH odd AS (SELECT * REPLACE (CASE WHEN shop = 'shop-1' THEN -1 ELSE weight END AS weight) FROM raw.orders) "
    )
    with pytest.raises(RowsRefused, match=r"predict\('order_late', …\): weight: wanted .*; try_predict gives NULL"):
        ask(f"{odd} SELECT predict('order_late', odd) FROM odd")
    rows = ask(
        f"{odd} SELECT shop, try_predict('order_late', odd) AS p, try_predict_score('order_late', odd) s FROM odd"
    )
    is_odd = rows["shop"] == "shop-1"
    assert rows.filter(is_odd).select(pl.col("p", "s").is_null().all()).row(0) == (True, True)
    assert rows.filter(~is_odd).null_count().row(0) == (0, 0, 0)


def test_views_are_read_as_of_the_query(world, ask):
    shops, view = world.shops, world.shops.views["shop_load"]
    sql = "SELECT predict_score('order_late', o) AS p FROM raw.orders AS o ORDER BY order_id"
    before, versions = ask(sql), {view.table: shops.lake.version(view.table)}
    newer = shops.lake.read(view.table).with_columns(load=pl.col("load") + 50).collect()
    shops.lake.replace(view.table, newer)
    assert not ask(sql).equals(before)
    assert ask(sql, versions=versions).equals(before)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT predict('order_lat', o) FROM raw.orders AS o", "did you mean 'order_late'"),
        ("SELECT predict('order_late@v7', o) FROM raw.orders AS o", "no version 7; it has v4"),
        ("SELECT predict(shop, o) FROM raw.orders AS o", "wanted predict"),
        ("SELECT predict('order_late') FROM raw.orders AS o", "wanted predict"),
        ("SELECT predict('order_late', o, o) FROM raw.orders AS o", "wanted predict"),
        ("SELECT predict('order_late', shop) FROM raw.orders AS o", "the second is String"),
        (
            "SELECT predict('order_late', {'shop': shop}) FROM raw.orders AS o",
            "order_late wants ordered_at; the row has shop",
        ),
        ("SELECT predict('order_late', o) FROM read_parquet('x.parquet') AS o", "not a table of the lake"),
    ],
)
def test_what_is_asked_wrongly_is_said(ask, sql, message):
    with pytest.raises((ValueError, LookupError, OutsideTheLake), match=message):
        ask(sql)


def test_a_view_of_another_definition(world, ask):
    world.shops.views = {}
    with pytest.raises(ValueError, match=r"'shop_load' \(which is gone\)"):
        ask("SELECT predict('order_late', o) FROM raw.orders AS o")


def test_another_task(world, ask):
    spec = multiclass_spec()
    shops = Shops(world.shops.settings, world.shops.folder, spec, world.shops.views)
    digest = shops.train().digest
    shops.store.publish(spec.name, [Target(version=1, digest=digest)], reason="test", by="ann")
    rows = ask(f"SELECT predict('{spec.name}', o), predict_score('{spec.name}', o) AS s FROM raw.orders AS o LIMIT 50")
    assert rows.schema == {"predict": pl.String, "s": pl.Float64}
    assert rows.null_count().row(0) == (0, 0)


def test_in_a_notebook(world, monkeypatch):
    from ml_platform.features import open_lake

    monkeypatch.setenv("ML_PLATFORM_HOME", str(world.shops.settings.home))
    with pytest.raises(LookupError, match="did you mean 'order_late'"):
        open_lake().sql("SELECT predict('order_lat', o) FROM raw.orders AS o")
