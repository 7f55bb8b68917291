"""Skew between what serving computed and what the lake says: planted ones are found, honest lags are told apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import pytest

from ml_platform.features.expressions.compile import evaluator
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import PushedRow
from ml_platform.features.point_in_time.lookup import resolve_lookup
from ml_platform.features.views.compute import compute_view
from ml_platform.inference.ingest_log import ingest_model_log
from ml_platform.inference.log import Batch, InferenceLog, Record
from ml_platform.inference.log_policy import LogPolicyFilter
from ml_platform.monitoring.skew.causes import ROW, find_causes
from ml_platform.monitoring.skew.detect import SkewReport, find_skew
from ml_platform.registry.manifest import InferenceLogPolicy, Manifest
from ml_platform.serving.inputs.feature_lookup import Lookups
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.monitoring import Skew
from ml_platform_tests.toy_world import REQUEST_FEATURES, START, Shops, push_loads

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
VIEW = "shop_load"
INSTANT = pl.Datetime("us", "UTC")


class Live:
    """Answers orders as serving does, from an online store as it was when they were asked."""

    def __init__(self, shops: Shops, digest: str) -> None:
        self.shops, self.digest = shops, digest
        self.manifest = shops.store.load_manifest(digest)
        self.view = shops.views[VIEW]
        self.log = InferenceLog(shops.settings.inference_log_dir)
        self.log_filter = LogPolicyFilter.of(self.manifest, shops.settings.keys_dir)

    def publish(self, until: datetime, change: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame) -> None:
        rows = self.shops.lake.read(self.view.table).filter(pl.col("event_time") <= until).sort("event_time").collect()
        newest = change(rows.unique("shop", keep="last", maintain_order=True))
        with open_online_store(self.shops.settings.online_uri) as store:
            store.write(self.view.name, self.view.entity, newest, view_hash=self.view.hash)

    def answer(
        self, first: datetime, last: datetime, *, answered: datetime | None = None, **planted: Callable[[Any], Any]
    ) -> None:
        """Answer the orders of a span; `planted` changes features on their way into the model."""
        orders = self.shops.lake.read("raw/orders").filter(pl.col("ordered_at").is_between(first, last)).collect()
        trees = {derived.name: evaluator(derived.tree) for derived in self.manifest.derived}
        with open_online_store(self.shops.settings.online_uri) as store:
            lookups = Lookups(self.manifest, store)
            for order in orders.select(field.name for field in self.manifest.inputs).to_dicts():
                row = dict(order)
                for name, evaluate in trees.items():
                    row[name] = evaluate(row)
                lookups.add([row], [row["ordered_at"]])
                row |= {name: change(row[name]) for name, change in planted.items()}
                record = Record(
                    request_id=order["order_id"], row=0, id=order["order_id"], model=self.manifest.model, version=1,
                    digest=self.digest, time=answered or row["ordered_at"], as_of=row["ordered_at"], caller=None,
                    inputs=order, features={item.name: row[item.name] for item in self.manifest.features}, score=0.5,
                    prediction=True,
                )  # fmt: skip
                records: Sequence[Record | Batch] = [record]
                if self.log_filter is not None:
                    records = self.log_filter.apply(records, record.request_id)
                self.log.append(self.manifest.model, records)

    def skew(self, **limits: Any) -> SkewReport:
        shops = self.shops
        ingest_model_log(shops.lake, shops.store, shops.settings.inference_log_dir / shops.spec.name)
        spec = ModelSpec.model_validate(
            {**shops.spec.model_dump(), "skew": {"window": "30 days", "min_rows": 1, **limits}}
        )
        return find_skew(shops.lake, spec, shops.views, shops.store)


@pytest.fixture
def live(shops, trained_shops):
    return Live(shops, trained_shops[1].digest)


def counts(report: SkewReport) -> dict[str, tuple[int, int]]:
    return {
        item.feature: (item.mismatches, item.accepted) for item in report.features if item.mismatches + item.accepted
    }


def test_what_the_log_hides_is_not_compared_and_the_rest_is(shops: Shops, trained_shops) -> None:
    files = {path.name: path.read_bytes() for path in shops.store.bundle_path(trained_shops[1].digest).iterdir()}
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    policy = InferenceLogPolicy(redact=("weight",), hash=("shop", "channel"))
    files["manifest.json"] = msgspec.json.encode(msgspec.structs.replace(manifest, inference_log=policy))
    live = Live(shops, shops.store.put_bundle(files))
    live.publish(NOON)
    live.answer(NOON, NOON + 3 * HOUR)
    report = live.skew()
    assert {item.feature for item in report.features} == {"weekday"}  # `heavy` is of weight, the look-up by shop
    assert (report.verdict, counts(report)) == ("no skew", {})
    live.answer(NOON + 4 * HOUR, NOON + 8 * HOUR, weekday=lambda day: day + 1)
    assert live.skew().verdict == "skew"


NOON = START + 60 * DAY + 12 * HOUR


def test_what_serving_computes_is_what_the_lake_says(live):
    for day in range(3):
        live.publish(NOON + day * DAY)
        live.answer(NOON + day * DAY, NOON + day * DAY + 11 * HOUR)
    report = live.skew()
    assert (report.verdict, counts(report), report.examples) == ("no skew", {}, ())
    assert report.rows > 60
    assert {item.feature for item in report.features} == {item.name for item in live.manifest.features}


def test_a_planted_skew_is_found_with_counts_and_examples(live):
    live.publish(NOON)
    live.answer(NOON, NOON + 11 * HOUR, weekday=lambda value: value % 7 + 1)  # weeks that begin on another day
    report = live.skew()
    assert report.verdict == "skew"
    assert counts(report) == {"weekday": (report.rows, 0)}
    assert report.reasons == (f"'weekday' differs in {report.rows} of {report.rows} rows",)
    example = report.examples[0]
    assert (example.feature, example.cause, example.online) == ("weekday", "different", example.offline % 7 + 1)


def test_values_that_the_view_never_had_are_found(live):
    live.publish(NOON, lambda frame: frame.with_columns(pl.col("load") * 60))  # hours online, minutes offline
    live.answer(NOON, NOON + 11 * HOUR)
    report = live.skew()
    assert list(counts(report)) == [f"{VIEW}__load"]
    assert {example.cause for example in report.examples} == {"different"}


def test_a_store_that_was_not_published_is_behind_and_a_short_lag_is_accepted(live):
    live.publish(NOON)
    midnight = START + 61 * DAY  # from when every shop has new rows
    live.answer(midnight, midnight + 6 * HOUR)
    late = live.skew()
    assert late.verdict == "skew"
    assert {example.cause for example in late.examples} == {"behind"}
    patient = live.skew(lag="7 hours")
    assert patient.verdict == "no skew"
    assert sum(accepted for _, accepted in counts(patient).values()) > 0


def test_a_pushed_row_is_known_to_the_lake_and_one_that_never_was_pushed_is_not(live):
    view, settings = live.view, live.shops.settings
    at = NOON + HOUR
    live.publish(NOON)
    with open_online_store(settings.online_uri) as store:
        store.push(view.name, view.hash, [PushedRow((f"shop-{number}",), at, (7.5, "pushed")) for number in range(8)])
    live.answer(at, at + 5 * HOUR)
    assert {example.cause for example in live.skew().examples} == {"different"}
    push_loads(live.shops, at, 7.5)
    assert live.skew().verdict == "no skew"


def test_an_empty_store_is_missing(live):
    live.publish(NOON, lambda frame: frame.head(0))
    live.answer(NOON, NOON + 6 * HOUR)
    report = live.skew(lag="7 days")
    assert report.verdict == "skew"
    assert {example.cause for example in report.examples} == {"missing"}


def ordered(live: Live, at: datetime) -> None:
    """Let there be some orders, all of one instant."""
    orders = live.shops.lake.read("raw/orders").head(50).collect()
    live.shops.lake.replace("raw/orders", orders.with_columns(ordered_at=pl.lit(at, orders.schema["ordered_at"])))


def corrected(live: Live, *late: tuple[str, datetime, float], change: pl.Expr | None = None) -> None:
    """Let rows of the source come late or be corrected, and compute the view again."""
    lake = live.shops.lake
    loads = lake.read("raw/loads").collect()
    rows = [(shop, at, load, "fine") for shop, at, load in late]
    new = pl.DataFrame(rows, schema=loads.schema, orient="row")
    lake.replace("raw/loads", pl.concat([loads.with_columns(change) if change is not None else loads, new]))
    compute_view(lake, live.view)


def test_what_was_corrected_after_the_answer_is_no_skew(live):
    live.publish(NOON)
    live.answer(NOON, NOON + 6 * HOUR, answered=datetime.now(UTC))
    corrected(live, change=(pl.col("load") + 1))
    report = live.skew()
    assert report.verdict == "no skew"
    assert counts(report)[f"{VIEW}__load"] == (0, report.rows)
    live.publish(NOON, lambda frame: frame.with_columns(pl.col("load") * 60))
    live.answer(NOON + 7 * HOUR, NOON + 11 * HOUR, answered=datetime.now(UTC) + DAY)
    later = live.skew(window="1 hour")
    assert {example.cause for example in later.examples} == {"different"}


def test_the_values_of_a_version_that_was_replaced_long_before_the_answer_are_skew(live):
    live.publish(NOON)
    corrected(live, change=(pl.col("load") + 1))
    live.answer(NOON, NOON + 6 * HOUR, answered=datetime.now(UTC) + 2 * HOUR)
    assert {example.cause for example in live.skew().examples} == {"different"}
    assert live.skew(lag="3 hours").verdict == "no skew"


def test_a_row_that_lacked_for_long_is_behind_though_it_came_late_and_the_others_were_corrected(live):
    live.publish(NOON)
    live.answer(NOON, NOON + 6 * HOUR, answered=datetime.now(UTC))
    late = [(f"shop-{number}", NOON - 3 * HOUR, 9.0) for number in range(8)]
    corrected(live, *late, change=(pl.col("load") + 1))
    report = live.skew()
    assert report.verdict == "skew"
    assert counts(report)[f"{VIEW}__load"] == (report.rows, 0)


def test_a_row_pushed_twice_was_once_what_it_was_at_first(live):
    now = datetime.now(UTC)
    ordered(live, now)
    live.publish(NOON)
    with open_online_store(live.shops.settings.online_uri) as store:
        rows = [PushedRow((f"shop-{number}",), now - HOUR, (7.5, "pushed")) for number in range(8)]
        store.push(live.view.name, live.view.hash, rows)
    live.answer(now, now)
    push_loads(live.shops, now - HOUR, 7.5)
    push_loads(live.shops, now - HOUR, 8.5, pushed=now + HOUR)
    report = live.skew()
    assert (report.verdict, counts(report)) == ("no skew", {f"{VIEW}__load": (0, report.rows)})
    push_loads(live.shops, now - HOUR, 9.5, pushed=now - HOUR / 2)
    assert live.skew().verdict == "skew"


def test_an_entity_that_is_just_known_may_be_missing_for_the_lag(live):
    first = START + DAY * 100  # all that was known before is expired
    corrected(live, *((f"shop-{number}", first, 3.0) for number in range(8)))
    ordered(live, first + HOUR / 2)
    live.publish(first - HOUR)
    live.answer(first, first + HOUR)
    assert live.skew().verdict == "no skew"
    missing = live.skew(lag="10 minutes")
    assert {example.cause for example in missing.examples} == {"missing"}


@pytest.mark.parametrize(("answered", "verdict"), [(datetime(2026, 1, 1, tzinfo=UTC), "no skew"), (None, "skew")])
def test_knowing_what_came_later_is_accepted_in_questions_about_the_past_only(live, answered, verdict):
    live.publish(NOON + 2 * DAY)
    live.answer(NOON, NOON + 6 * HOUR, answered=answered)
    report = live.skew()
    assert report.verdict == verdict
    assert sum(mismatches + accepted for mismatches, accepted in counts(report).values()) > 0
    assert {example.cause for example in report.examples} == ({"ahead"} if verdict == "skew" else set())


def test_only_rows_of_the_present_definitions_are_compared(live):
    live.publish(NOON)
    live.answer(NOON, NOON + 2 * HOUR)
    live.shops.views = {VIEW: live.view.model_copy(update={"ttl": timedelta(days=9)})}
    report = live.skew()
    assert (report.verdict, report.rows) == ("not judged", 0)
    assert report.not_comparable > 0


def test_each_version_is_compared_by_its_own_definitions(live, tmp_path):
    live.publish(NOON)
    live.answer(NOON, NOON + 5 * HOUR)
    features = tmp_path / "features.py"
    features.write_text(REQUEST_FEATURES.replace("> 20", "> 3").replace("weekday().cast(pl.Int64)", "hour()"))
    inputs = [field.model_dump() for field in live.shops.spec.inputs]
    next(field for field in inputs if field["name"] == "channel")["default"] = "web"
    edited = live.shops.respecified(
        request_features=str(features), inputs=inputs, lookups=[], families=["logistic_regression"]
    )
    live.shops = edited
    assert live.skew().verdict == "no skew", "an edit alone changes nothing"
    later = Live(edited, edited.train(START + 50 * DAY).digest)
    later.answer(NOON + 6 * HOUR, NOON + 11 * HOUR)
    report = later.skew()
    assert (report.verdict, counts(report), report.not_comparable) == ("no skew", {}, 0)
    rows = {item.feature: item.rows for item in report.features}
    assert rows["weekday"] == report.rows > rows["shop_load__load"] > 0


def test_infinite_numbers_are_compared_as_the_log_can_say_them(live):
    view = live.shops.lake.read(live.view.table).with_columns(load=pl.lit(float("inf"))).collect()
    live.shops.lake.replace(live.view.table, view)
    live.publish(NOON)
    live.answer(NOON, NOON + 3 * HOUR)
    report = live.skew()
    assert (report.verdict, counts(report)) == ("no skew", {})
    live.publish(NOON + DAY, lambda frame: frame.with_columns(load=pl.lit(12.0)))
    live.answer(NOON + DAY, NOON + DAY + 3 * HOUR)
    later = live.skew(window="1 day")
    assert later.verdict == "skew"
    assert list(counts(later)) == [f"{VIEW}__load"]


def test_nothing_logged_is_not_judged(live):
    assert live.skew().reasons == ("no request has been logged yet",)
    live.publish(NOON)
    live.answer(NOON, NOON + 3 * HOUR)
    live.skew()
    table = f"inference_log/{live.shops.spec.name}"
    live.shops.lake.replace(table, live.shops.lake.read(table).collect().clear())
    assert live.skew().reasons == ("no request has been logged yet",)


def test_a_view_looked_up_twice_is_served_under_both_names_as_it_was_trained(shops, tmp_path):
    features = tmp_path / "features.py"
    next_shop = 'pl.when(pl.col("shop") == "A").then(pl.lit("B")).otherwise(pl.lit("A"))'
    features.write_text(
        "import polars as pl\nfrom ml_platform.features.expressions.request_features import RequestFeature\n"
        f"REQUEST_FEATURES = {{'next_shop': RequestFeature({next_shop}, 'Whose load matters as well.')}}\n"
    )
    lookups = [{"view": VIEW}, {"view": VIEW, "name": "nearby", "keys": {"shop": "next_shop"}, "features": ["load"]}]
    world = shops.respecified(request_features=str(features), lookups=lookups, families=["logistic_regression"])
    live = Live(world, world.train(START + 50 * DAY).digest)
    live.publish(START + 60 * DAY)
    live.answer(START + 60 * DAY, START + 60 * DAY + 12 * HOUR)
    report = live.skew(lag="12 hours")
    assert (report.verdict, len(report.features)) == ("no skew", 7), report.examples
    log = world.lake.read(f"inference_log/{world.spec.name}").collect()
    loads = log.select("shop", "shop_load__load", "nearby__load").unique()
    of_b = loads.filter(pl.col("shop") == "B")["shop_load__load"].unique()
    assert loads.filter(pl.col("shop") == "A")["nearby__load"].unique().equals(of_b)


def test_spans_longer_than_the_calendar(live):
    live.publish(NOON)
    midnight = START + 61 * DAY  # from when every shop has new rows
    live.answer(midnight, midnight + 6 * HOUR)
    behind = live.skew(window=timedelta.max)
    assert behind.verdict == "skew"
    assert {example.cause for example in behind.examples} == {"behind"}
    assert live.skew(window=timedelta.max, lag=timedelta.max).verdict == "no skew"
    view = live.shops.views[VIEW]
    lookup = resolve_lookup(live.shops.spec.lookups[0], view, live.shops.lake.read(view.table))
    at = datetime(2024, 3, 2, tzinfo=UTC)
    asked = pl.DataFrame({ROW: [0], "as_of": [at], "scored_at": [at], "shop": ["shop-1"], "shop_load__load": [None]},
                         schema_overrides={"shop_load__load": pl.Float64, ROW: pl.UInt32, "as_of": INSTANT,
                                           "scored_at": INSTANT})  # fmt: skip
    for ttl in (timedelta(days=3), timedelta.max):
        causes = find_causes(
            live.shops.lake, view, replace(lookup, ttl=ttl), asked.drop("shop"), asked.select(ROW, "shop"),
            {"shop_load__load": asked.get_column(ROW)}, Skew(),
        )  # fmt: skip
        assert causes.select("cause", "accepted").rows() == [("missing", False)]
