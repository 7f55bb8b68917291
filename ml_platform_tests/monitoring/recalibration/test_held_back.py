"""What holds a recalibration back: a guardrail that it breaks, and that one was taken back before."""

from collections.abc import Callable

import pytest

from ml_platform.governance.ledger_check import verify_ledger
from ml_platform.monitoring.recalibration.cli import report_lines
from ml_platform.monitoring.recalibration.recalibrate import RecalibrationReport, recalibrate
from ml_platform.monitoring.recalibration.resume import resume_recalibration
from ml_platform.promotion.promote import change_traffic, promote_version, rollback
from ml_platform.promotion.reconcile import versions_of
from ml_platform.registry.adapted_conformal import load_adapted
from ml_platform.registry.canary import roll_back_walk, start_walk
from ml_platform.registry.ledger import read_ledger, read_releases
from ml_platform.registry.manifest import CanaryPolicy, champion_target
from ml_platform.registry.recalibration_pause import NotPaused, recalibration_pause
from ml_platform.registry.traffic import TrafficChange
from ml_platform.spec.guardrails import Fairness, Guardrails
from ml_platform.spec.promotion import Canary
from ml_platform_tests.monitoring.recalibration.conftest import score_days
from ml_platform_tests.toy_world import Shops

MODEL = "order_late"


def recalibrated(shops: Shops) -> RecalibrationReport:
    return recalibrate(shops.settings, shops.spec, shops.folder, by="ann")


def guarded(shops: Shops, **bounds: object) -> Shops:
    promotion = shops.spec.promotion.model_copy(update=bounds)
    return Shops(
        shops.settings, shops.folder, shops.spec.model_copy(update={"promotion": promotion}), shops.views
    )  # fmt: skip


def serves(shops: Shops) -> int:
    endpoint = shops.store.endpoint(MODEL)
    assert endpoint is not None
    return champion_target(endpoint).version


def test_guardrails_judge_it_on_the_labelled_answers(slow_shops: Shops) -> None:
    fairness = Fairness(columns=["shop"], max_selection_difference=0.99, min_rows=20, min_positives=5)
    shops = guarded(slow_shops, guardrails=Guardrails(max_changed_decisions=0.001, fairness=fairness))
    report = recalibrated(shops)
    verdicts = {one.title: one.verdict for one in report.guardrails}
    assert verdicts["changed_decisions"] == "broken"
    assert verdicts["selection_rate of shop"] == "held"
    assert (verdicts["calibration"], verdicts["score_shift"]) == ("shown", "shown")
    assert (report.new_version, report.released, serves(shops)) == (None, False, 1)
    assert report.reasons[0] == "Probabilities stay as they are: a guardrail refuses."
    assert "share of rows with another answer than the champion's" in report.reasons[1]
    assert len(versions_of(shops.tracker, MODEL)) == 1  # nothing was made
    adapted = load_adapted(shops.store, champion_target(shops.store.endpoint(MODEL)).digest)  # type: ignore[arg-type]
    assert adapted is not None  # intervals follow all the same

    allowed = guarded(slow_shops, guardrails=Guardrails(max_changed_decisions=0.99, max_calibration_error=0.5))
    report = recalibrated(allowed)
    assert report.released
    assert {one.title: one.verdict for one in report.guardrails}["calibration"] == "held"
    assert {"parity", "latency", "bundle_size"} <= {one.name for one in report.guardrails}
    entry = read_releases(shops.lake, MODEL).row(-1, named=True)
    assert (entry["action"], entry["to_version"]) == ("recalibration", 2)


def test_groups_of_what_is_not_recorded_are_not_computed(slow_shops: Shops) -> None:
    shops = guarded(slow_shops, slices=("nothing",), guardrails=Guardrails(optional=("selection_rate",)))
    # AUC of every group stays as it is, whatever the groups are.
    assert recalibrated(shops).released
    fairness = Fairness(columns=["nothing"], max_selection_difference=0.5)
    shops = guarded(slow_shops, guardrails=Guardrails(fairness=fairness))
    score_days(shops, 75, 80)
    report = recalibrated(shops)
    assert {one.title: one.verdict for one in report.guardrails}["selection_rate of nothing"] == "not computed"
    assert not report.released


def test_a_bundle_that_is_too_large_waits_for_a_person(slow_shops: Shops) -> None:
    shops = guarded(slow_shops, guardrails=Guardrails(max_bundle_mb=0.001))
    report = recalibrated(shops)
    assert (report.new_version, report.released, serves(shops)) == (2, False, 1)
    assert "MB are allowed" in report.reasons[0]
    assert promote_version(shops.settings, MODEL, 2, by="ann", reason="small enough").action == "promotion"


def rolled_back(shops: Shops) -> None:
    rollback(shops.settings, MODEL, by="bob", reason="too many alarms")


def by_traffic(shops: Shops) -> None:
    change_traffic(shops.settings, MODEL, TrafficChange(shares={1: 1.0}), by="bob", reason="too many alarms")


def by_hand(shops: Shops) -> None:
    promote_version(shops.settings, MODEL, 1, by="bob", reason="too many alarms")


@pytest.mark.parametrize("take_back", [rolled_back, by_traffic, by_hand])
def test_what_was_taken_back_stays_so_until_somebody_resumes(
    slow_shops: Shops, take_back: Callable[[Shops], None]
) -> None:
    shops = slow_shops
    assert recalibrated(shops).released
    assert recalibration_pause(shops.store, MODEL) is None
    take_back(shops)
    paused = recalibration_pause(shops.store, MODEL)
    assert paused is not None
    assert (paused.revision, paused.updated_by) == (3, "bob")
    score_days(shops, 75, 78)  # and new labels, which are no reason to go on
    for _ in range(2):
        report = recalibrated(shops)
        assert (report.paused, report.released, report.new_version, serves(shops)) == (True, False, None, 1)
        assert report.reasons[0].startswith("Recalibrations are paused: one was taken back in revision 3 at ")
        assert "(too many alarms)" in report.reasons[0]
    change_traffic(
        shops.settings, MODEL, TrafficChange(shares={1: 1.0}, key="order_id"), by="bob", reason="the key"
    )  # what serves changed otherwise
    assert recalibrated(shops).paused
    with pytest.raises(ValueError, match="wanted a reason"):
        resume_recalibration(shops.settings, MODEL, by="bob", reason=" ")
    said = resume_recalibration(shops.settings, MODEL, by="bob", reason="the threshold was wrong")
    assert said == f"{MODEL}: recalibrations go on; revision 3 of bob had paused them"
    with pytest.raises(NotPaused, match="there is nothing to resume"):
        resume_recalibration(shops.settings, MODEL, by="bob", reason="again")
    entry = read_ledger(shops.lake, MODEL).sort("number").row(-1, named=True)
    assert (entry["action"], entry["by"], entry["reason"]) == (
        "recalibration resumed", "bob", "the threshold was wrong"
    )  # fmt: skip
    assert verify_ledger(shops.lake, shops.settings)[1] == []
    report = recalibrated(shops)
    assert report.released
    assert not report.paused
    assert serves(shops) == report.new_version


def test_whoever_puts_it_back_ends_the_pause(slow_shops: Shops) -> None:
    recalibrated(slow_shops)
    rolled_back(slow_shops)
    rolled_back(slow_shops)  # which undoes the first
    assert serves(slow_shops) == 2
    assert recalibration_pause(slow_shops.store, MODEL) is None


def test_a_newly_trained_version_ends_the_pause(slow_shops: Shops) -> None:
    shops = slow_shops
    recalibrated(shops)
    rolled_back(shops)
    files = shops.store.read_bundle(champion_target(shops.store.endpoint(MODEL)).digest)  # type: ignore[arg-type]
    digest = shops.store.put_bundle(
        {**files, "manifest.json": files["manifest.json"].replace(b"shops@example.com", b"other@example.com")}
    )
    first = versions_of(shops.tracker, MODEL)[0]
    created = shops.tracker.client.create_model_version(MODEL, first.source, tags={"bundle_digest": digest})
    shops.store.register_version(MODEL, int(created.version), digest)
    promote_version(shops.settings, MODEL, int(created.version), by="ann", reason="trained")
    assert recalibration_pause(shops.store, MODEL) is None
    rolled_back(shops)
    assert recalibration_pause(shops.store, MODEL) is None  # that one is no recalibration


def test_one_that_walks_is_not_said_to_serve_all(slow_shops: Shops) -> None:
    shops = guarded(slow_shops, canary=Canary(steps=(10, 100)))
    report = recalibrated(shops)
    assert (report.released, report.percent, serves(shops)) == (True, 10, 1)
    assert report_lines(report)[0].startswith(
        "order_late: version 2 serves 10 % as a canary, recalibrated from version 1"
    )


def test_a_canary_walk_that_was_rolled_back_pauses_too(slow_shops: Shops) -> None:
    shops = slow_shops
    recalibrated(shops)
    target = champion_target(shops.store.endpoint(MODEL))  # type: ignore[arg-type]
    rolled_back(shops)
    resume_recalibration(shops.settings, MODEL, by="bob", reason="try it")
    policy = CanaryPolicy(steps=(10, 100), minutes=0)
    walk = start_walk(shops.store, MODEL, 2, target.digest, policy=policy, reason="try it", by="bob")
    assert recalibration_pause(shops.store, MODEL) is None
    ended = roll_back_walk(shops.store, walk, reason="errors", by="canary")
    paused = recalibration_pause(shops.store, MODEL)
    assert paused is not None
    assert paused.revision == ended.revision
    assert paused.action == "rollback"
