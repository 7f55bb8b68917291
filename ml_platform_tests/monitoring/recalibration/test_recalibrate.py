"""From labels that come to a light release: judged, registered once, promoted, rolled back, kept by a person."""

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.monitoring.performance.measure import measure_performance
from ml_platform.monitoring.recalibration import recalibrate as module
from ml_platform.monitoring.recalibration.recalibrate import RecalibrationReport, recalibrate
from ml_platform.promotion.compare import compare_versions
from ml_platform.promotion.comparison_pages import parts_of
from ml_platform.promotion.promote import promote_version, rollback
from ml_platform.promotion.reconcile import versions_of
from ml_platform.registry.adapted_conformal import load_adapted
from ml_platform.registry.card_pages import card_html, card_markdown
from ml_platform.registry.ledger import read_releases
from ml_platform.registry.manifest import Judged, Target, champion_target
from ml_platform.registry.model_card import load_card
from ml_platform.spec.promotion import Approval
from ml_platform.training.evaluation.calibration import expected_calibration_error
from ml_platform.training.evaluation.contenders import as_judged
from ml_platform_tests.monitoring.recalibration.conftest import day, score_days
from ml_platform_tests.toy_world import START, Shops

MODEL = "order_late"


def recalibrated(shops: Shops, **more: Any) -> RecalibrationReport:
    return recalibrate(shops.settings, shops.spec, shops.folder, by="ann", **more)


def serving(shops: Shops) -> Target:
    endpoint = shops.store.endpoint(MODEL)
    assert endpoint is not None
    return champion_target(endpoint)


def error_of(shops: Shops, first: int, last: int) -> float:
    """Calibration error of what serves on the orders of some days."""
    scored = shops.lake.read(f"predictions/{MODEL}").collect()
    orders = shops.lake.read("raw/orders").collect().select(pl.col("order_id").alias("id"), "late")
    rows = scored.filter(scored["as_of"].is_between(day(first), day(last))).join(orders, on="id")
    return expected_calibration_error("binary", encode_labels(rows["late"], shops.spec), rows["score"].to_numpy())


def test_probabilities_follow_the_labels_without_training(slow_shops: Shops) -> None:
    before = serving(slow_shops)
    report = recalibrated(slow_shops)
    assert report.released
    assert (report.version, report.new_version) == (1, 2)
    assert report.calibration_error is not None
    assert report.calibration_error[1] < report.calibration_error[0] / 2
    assert report.log_loss is not None
    assert report.log_loss[1] < report.log_loss[0]
    after = serving(slow_shops)
    assert after.version == 2
    manifest = slow_shops.store.load_manifest(after.digest)
    base = slow_shops.store.load_manifest(before.digest)
    assert manifest.recalibrated is not None
    assert (manifest.recalibrated.base_version, manifest.recalibrated.base_digest) == (1, before.digest)
    assert manifest.calibration is not None
    assert manifest.calibration.fitted_on == "labelled"
    assert (manifest.threshold, manifest.metrics, manifest.provenance) == (
        base.threshold,
        base.metrics,
        base.provenance,
    )
    served = error_of(slow_shops, 68, 75)
    score_days(slow_shops, 75, 80)
    assert error_of(slow_shops, 75, 80) < served / 2  # days that nobody had seen
    # The order of the rows is the same: nothing was trained.
    golden = msgspec.json.decode(slow_shops.store.read_bundle(after.digest)["golden.json"])
    matrix = np.array(golden["matrix"], dtype=np.float64)
    scores = [Scorer.load(slow_shops.store.bundle_path(one.digest)).score(matrix) for one in (before, after)]
    assert (np.argsort(scores[0], kind="stable") == np.argsort(scores[1], kind="stable")).all()


def test_ledger_registry_card_and_intervals_tell_of_it(slow_shops: Shops) -> None:
    report = recalibrated(slow_shops)
    entry = read_releases(slow_shops.lake, MODEL).row(-1, named=True)
    assert (entry["from_version"], entry["to_version"], entry["by"]) == (1, 2, "ann")
    assert "version 1 with other probabilities" in entry["reason"]
    assert "expected calibration error" in entry["reason"]
    registered = {int(one.version): one for one in versions_of(slow_shops.tracker, MODEL)}[2]
    assert (registered.tags["base_version"], registered.tags["recalibrated_version"]) == ("1", "1")
    assert registered.tags["gate"] == "passed"
    card = load_card(slow_shops.store, MODEL, 2)
    assert card.recalibrated is not None
    for page in (card_markdown(slow_shops.store, card), card_html(slow_shops.store, card)):
        assert "Version 1 with other probabilities, without training" in page
        assert "Platt scaling: slope" in page
        assert "those of 0.9 held" in page
    assert "Expected calibration error" in card_markdown(slow_shops.store, load_card(slow_shops.store, MODEL, 1))
    assert "<svg" in card_html(slow_shops.store, load_card(slow_shops.store, MODEL, 1))
    adapted = load_adapted(slow_shops.store, serving(slow_shops).digest)
    assert adapted is not None
    assert adapted.days == report.counted_days > 10
    assert report.coverage == adapted.conformal.coverage


@pytest.mark.slow
def test_it_is_rolled_back_as_any_release_and_performance_goes_on(slow_shops: Shops) -> None:
    recalibrated(slow_shops)
    performance = measure_performance(slow_shops.lake, slow_shops.spec, slow_shops.folder, slow_shops.store)
    assert (performance.version, performance.rows) == (2, performance.rescored_rows)  # its window is there at once
    assert performance.rows > 100
    endpoint = rollback(slow_shops.settings, MODEL, by="ann", reason="by hand")
    assert champion_target(endpoint).version == 1


@pytest.mark.slow
def test_the_next_challenger_meets_what_serves(slow_shops: Shops) -> None:
    """The gate rescoring a champion as it was judged takes its newest calibration, not that of its training."""
    base = serving(slow_shops)
    recalibrated(slow_shops)
    champion = serving(slow_shops)
    manifest = slow_shops.store.load_manifest(champion.digest)
    judged = as_judged(slow_shops.store, champion.digest)
    golden = msgspec.json.decode(slow_shops.store.read_bundle(base.digest)["golden.json"])
    matrix = np.array(golden["matrix"], dtype=np.float64)
    served = Scorer.load(slow_shops.store.bundle_path(champion.digest))
    assert judged.manifest == served.manifest  # it was registered as it was judged
    files = slow_shops.store.read_bundle(champion.digest)
    before = Judged(digest=base.digest, model_digest="", trained_until="", holdout_from="", holdout_until="")
    provenance = msgspec.structs.replace(manifest.provenance, judged=before)
    refit = msgspec.json.encode(msgspec.structs.replace(manifest, provenance=provenance))
    judged = as_judged(slow_shops.store, slow_shops.store.put_bundle({**files, "manifest.json": refit}))
    assert judged.digest == base.digest
    assert judged.manifest.calibration == manifest.calibration
    assert np.allclose(judged.score(matrix), served.score(matrix), atol=1e-12)


@pytest.mark.slow
def test_again_without_new_labels_nothing_is_made(slow_shops: Shops) -> None:
    recalibrated(slow_shops)
    again = recalibrated(slow_shops)
    assert (again.version, again.new_version, again.released) == (2, None, False)
    assert any("recalibration.min_change" in reason for reason in again.reasons)
    assert len(versions_of(slow_shops.tracker, MODEL)) == 2
    document = load_adapted(slow_shops.store, serving(slow_shops).digest)
    recalibrated(slow_shops)
    later = load_adapted(slow_shops.store, serving(slow_shops).digest)
    assert document is not None
    assert later is not None
    assert (later.days, later.through, later.history) == (document.days, document.through, document.history)
    assert np.allclose(later.misses, document.misses)
    assert np.allclose(later.conformal.cutoffs, document.conformal.cutoffs)  # of scores that are rounded otherwise


@pytest.mark.slow
def test_a_recalibrated_version_is_recalibrated_from_its_base(slow_shops: Shops) -> None:
    recalibrated(slow_shops, until=day(62))
    score_days(slow_shops, 75, 80)
    shops = Shops(
        slow_shops.settings,
        slow_shops.folder,
        slow_shops.spec.model_copy(
            update={"recalibration": slow_shops.spec.recalibration.model_copy(update={"min_change": 0.0})}
        ),
        slow_shops.views,
    )
    report = recalibrated(shops)
    assert report.new_version is None or report.released
    manifest = shops.store.load_manifest(serving(shops).digest)
    assert manifest.recalibrated is not None
    assert manifest.recalibrated.base_version == 1


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["store_adapted", "write_recalibrated_card", "promote"])
def test_cut_short_and_repeated_it_is_made_once(slow_shops: Shops, monkeypatch, broken: str) -> None:
    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, broken, cut)
        with pytest.raises(KeyboardInterrupt):
            recalibrated(slow_shops)
    assert serving(slow_shops).version == 1
    report = recalibrated(slow_shops)
    assert (report.new_version, report.released) == (2, True)
    assert [int(one.version) for one in versions_of(slow_shops.tracker, MODEL)] in ([1, 2], [2, 1])


@pytest.mark.slow
def test_a_dry_run_changes_nothing(slow_shops: Shops) -> None:
    report = recalibrated(slow_shops, dry_run=True)
    assert report.reasons[0] == "It would be released (dry run: nothing was changed)."
    assert serving(slow_shops).version == 1
    assert load_adapted(slow_shops.store, serving(slow_shops).digest) is None
    assert len(versions_of(slow_shops.tracker, MODEL)) == 1


def with_promotion(shops: Shops, **changes: Any) -> Shops:
    promotion = shops.spec.promotion.model_validate({**shops.spec.promotion.model_dump(), **changes})
    return Shops(shops.settings, shops.folder, shops.spec.model_copy(update={"promotion": promotion}), shops.views)


@pytest.mark.slow
def test_where_a_person_decides_it_waits(slow_shops: Shops) -> None:
    shops = with_promotion(slow_shops, automatic=False)
    report = recalibrated(shops)
    assert (report.new_version, report.released) == (2, False)
    assert "waits as challenger" in report.reasons[0]
    assert serving(shops).version == 1
    promote_version(shops.settings, MODEL, 2, by="bea", reason="looks right")
    assert serving(shops).version == 2


@pytest.mark.slow
def test_an_approval_that_is_new_in_the_declaration_is_asked_for(slow_shops: Shops) -> None:
    shops = with_promotion(slow_shops, automatic=False, approval=Approval())
    report = recalibrated(shops)
    assert (report.new_version, report.released) == (2, False)
    request = shops.store.approvals.get(MODEL, 2)
    assert request is not None
    assert [event.action for event in request.events] == ["approval requested"]
    assert serving(shops).version == 1


def test_what_the_labels_do_not_tell_is_said(slow_shops: Shops) -> None:
    few = recalibrated(slow_shops, until=day(52))
    assert few.released is False
    assert any("fewer than recalibration.min_rows" in reason for reason in few.reasons)
    none = recalibrated(slow_shops, until=day(50) - timedelta(days=20))
    assert none.reasons == ("No answer of the version that serves has a label yet.",)
    left = Shops(
        slow_shops.settings,
        slow_shops.folder,
        slow_shops.spec.model_copy(update={"calibration": "none"}),
        slow_shops.views,
    )
    assert "calibration is none in defs.yaml" in recalibrated(left).reasons[0]
    assert serving(left).version == 1


def test_what_would_make_answers_worse_is_not_released(slow_shops: Shops) -> None:
    """Three days of much later orders follow three of much earlier ones: the days before say the wrong thing."""
    orders = slow_shops.lake.read("raw/orders").collect()
    number = (pl.col("ordered_at") - START).dt.total_days()
    moved = pl.when(number >= 50).then(pl.col("minutes") + 30 * ((number // 3) % 2) - 15).otherwise("minutes")
    slow_shops.lake.replace("raw/orders", orders.with_columns(late=moved > 5))
    rules = {"window": timedelta(days=3), "min_rows": 100}
    spec = slow_shops.spec.model_copy(update={"recalibration": slow_shops.spec.recalibration.model_copy(update=rules)})
    report = recalibrated(Shops(slow_shops.settings, slow_shops.folder, spec, slow_shops.views))
    assert (report.new_version, report.released) == (None, False)
    assert report.reasons[0] == "Probabilities stay as they are."
    assert report.log_loss is not None
    assert report.log_loss[1] > report.log_loss[0]
    assert any(reason.startswith("Failed: ") for reason in report.reasons)
    assert serving(slow_shops).version == 1


def test_shared_traffic_and_no_release_are_refused(slow_shops: Shops) -> None:
    champion = serving(slow_shops)
    slow_shops.store.register_version(MODEL, 2, champion.digest)
    targets = [
        Target(version=1, digest=champion.digest, share=0.5),
        Target(version=2, digest=champion.digest, share=0.5),
    ]
    slow_shops.store.publish(MODEL, targets, reason="a test", by="ann", action="traffic")
    with pytest.raises(ValueError, match="several versions share the traffic"):
        recalibrated(slow_shops)
    slow_shops.store.publish(MODEL, [], reason="out", by="ann", action="withdrawal")
    with pytest.raises(LookupError, match="nothing serves"):
        recalibrated(slow_shops)


def test_comparing_tells_what_the_calibrations_are_and_which_rows_cannot_show(slow_shops: Shops) -> None:
    recalibrated(slow_shops)
    result = compare_versions(
        slow_shops.lake, slow_shops.store, slow_shops.spec, slow_shops.folder, slow_shops.views, versions=[1, 2]
    )
    made = dict(dict(parts_of(result))["Provenance"])
    assert made["calibration"][1].startswith("slope ")
    assert ", shift " in made["calibration"][1]
    assert made["recalibrated from"] == ("–", "version 1")
    assert "labelled rows" in made["calibrated on"][1]
    assert any("Version 2 was recalibrated on answers until" in line for line in result.warnings)
    assert result.same_rows is not None
    before = result.same_rows.last
    third = slow_shops.respecified(families=["logistic_regression"], tuning={"trials": 1}).train()
    slow_shops.store.register_version(MODEL, 3, third.digest)
    result = compare_versions(
        slow_shops.lake, slow_shops.store, slow_shops.spec, slow_shops.folder, slow_shops.views, versions=[1, 2]
    )
    assert result.same_rows is not None
    assert result.same_rows.last > before  # rows of the newest training set that any version has
