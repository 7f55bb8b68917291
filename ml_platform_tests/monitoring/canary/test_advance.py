"""Walks from the gate or a person to their end: steps, rollbacks, interruptions, and what is told of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import msgspec
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance.ledger_check import verify_ledger
from ml_platform.inference.outcomes import read_outcomes
from ml_platform.monitoring.canary.advance import advance, decide, tell_ends
from ml_platform.orchestration.canary_sensor import canary_step, canary_walks
from ml_platform.orchestration.endpoint_jobs import endpoint_jobs
from ml_platform.orchestration.resources import Platform, build_resources
from ml_platform.promotion.promote import promote, promote_version, rollback
from ml_platform.promotion.versions import register
from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.registry.canary import canary_policy, read_report, walk_of
from ml_platform.registry.ledger import read_releases
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseConflict
from ml_platform.registry.traffic import TrafficChange, set_traffic
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.promotion import Approval, Canary
from ml_platform.training.documents import Evaluation, RegisteredVersion, ReleaseDecision, TrainedModel
from ml_platform_tests.monitoring.canary.walks import requests, write
from ml_platform_tests.toy_world import Shops

NAME = "order_late"


class Walks:
    """Version 1 serves; 2 and 3, other bundles of the same model, are registered; releases walk without a pause."""

    def __init__(self, shops: Shops, trained: TrainedModel) -> None:
        self.shops, self.store, self.settings = shops, shops.store, shops.settings
        canary = Canary(steps=(10, 50, 100), minutes=0)
        self.spec: ModelSpec = shops.spec.model_copy(
            update={"promotion": shops.spec.promotion.model_copy(update={"canary": canary})}
        )
        evaluation = shops.evaluate(trained).model_copy(update={"promote": True, "reasons": ("because",)})
        self.versions = {1: register(self.spec, trained, evaluation, tracker=shops.tracker)}
        self.evaluation = evaluation
        first = self.promote(1)
        assert first.promoted  # the first of its model has nothing to walk beside
        assert self.endpoint.canary is None
        for number in (2, 3):
            self.versions[number] = self._registered(number, trained)

    @property
    def endpoint(self) -> Endpoint:
        document = self.store.document(NAME)
        assert document is not None
        return document

    def live(self) -> dict[int, float]:
        return {target.version: round(target.share, 6) for target in self.endpoint.targets if target.mode == "live"}

    def promote(self, number: int, spec: ModelSpec | None = None) -> ReleaseDecision:
        version = self.versions[number]
        judged: Evaluation = self.evaluation.model_copy(
            update={"revision": self.store.revision(NAME), "challenger_digest": version.digest}
        )
        return promote(self.settings, spec or self.spec, version, judged, tracker=self.shops.tracker, by="run 1")

    def answer(self, number: int = 500, seed: int = 0, **effects: float) -> None:
        """Let the versions answer requests at the present step."""
        walk = walk_of(self.endpoint)
        outcomes = requests(np.random.default_rng(seed), walk.percent / 100, number, **effects)  # type: ignore[arg-type]
        write(self.settings.outcomes_dir, NAME, self.endpoint.revision, (1, walk.version), outcomes)

    def alerts(self) -> list[dict[str, str]]:
        file = self.settings.alerts_dir / "alerts.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [one for one in map(json.loads, lines) if one["kind"] == "canary"]

    def _registered(self, number: int, trained: TrainedModel) -> RegisteredVersion:
        files = self.store.read_bundle(trained.digest)
        files["manifest.json"] = files["manifest.json"].replace(b"shops@example.com", f"{number}@example.com".encode())
        digest, first = self.store.put_bundle(files), self.versions[1]
        created = self.shops.tracker.client.create_model_version(NAME, first.model_uri, tags={"bundle_digest": digest})
        self.store.register_version(NAME, int(created.version), digest)
        return first.model_copy(update={"version": int(created.version), "digest": digest, "judged_digest": None})


@pytest.fixture
def walks(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Walks:
    return Walks(shops, trained_shops[1])


@pytest.fixture
def run(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))
    return lambda *words: CliRunner().invoke(app, words)


def test_a_release_walks_to_all_traffic(walks: Walks) -> None:
    decision = walks.promote(2)
    assert decision.promoted
    assert "Version 2 serves 10 % from revision 2 on, as a canary beside version 1" in decision.reasons[0]
    assert walks.live() == {1: 0.9, 2: 0.1}
    assert walks.promote(2).reasons == decision.reasons  # the same run, repeated
    progress = advance(walks.settings, NAME)
    assert progress.report is not None
    assert (progress.changed, progress.report.decision) == (False, "wait")
    assert (
        "for requests: 0 requests of the canary and 0 of the champion, of 200 answered ones each"
        in progress.report.said
    )
    for share in ({1: 0.5, 2: 0.5}, {2: 1.0}):
        walks.answer()
        assert advance(walks.settings, NAME).changed
        assert walks.live() == share
    assert (walks.endpoint.action, walks.endpoint.walk) == ("promotion", None)
    assert not advance(walks.settings, NAME).changed
    client = walks.shops.tracker.client
    assert client.get_model_version_by_alias(NAME, "champion").version == 2
    ledger = read_releases(walks.shops.lake, NAME)
    assert ledger["action"].to_list() == ["promotion", "canary", "canary", "promotion"]
    assert ledger["to_version"].to_list() == [1, 1, 1, 2]  # half the traffic makes no champion
    assert ledger["from_version"].to_list() == [None, 1, 1, 1]
    assert verify_ledger(walks.shops.lake, walks.settings)[1] == []
    assert [(one["severity"], one["title"]) for one in walks.alerts()] == [
        ("info", "the canary of version 2 is completed: it answers all requests")
    ]
    assert not list((walks.settings.outcomes_dir / NAME).glob("*.jsonl"))
    assert [target.version for target in rollback(walks.settings, NAME, by="bob", reason="slow").targets] == [1]


def test_a_breach_rolls_back_and_says_so(walks: Walks, run: Callable[..., Result]) -> None:
    walks.promote(2)
    walks.answer()
    advance(walks.settings, NAME)
    walks.answer(more_errors=0.2)
    report = walk_of(walks.endpoint)
    done = run("canary", "run", NAME, "--every", "0.05")
    assert done.exit_code == 1, done.output
    assert walks.live() == {1: 1.0}
    document = walks.endpoint
    assert (document.action, document.updated_by) == ("rollback", "canary")
    assert document.reason.startswith("canary of version 2 rolled back at 50 %: requests not answered: ")
    assert document.reason.split(": ", 1)[1] in done.output
    found = read_report(walks.store, document)
    assert found is not None
    assert [finding.guard for finding in found.guards if finding.breached] == ["errors"]
    [alert] = walks.alerts()
    assert (alert["severity"], alert["title"]) == ("error", "the canary of version 2 was rolled back at 50 %")
    shown = run("canary", "status", NAME).output
    assert "canary of version 2: rolled back, 50 % (step 2 of 3)" in shown
    assert "BREACHED requests not answered" in shown
    assert "BREACHED requests not answered" in run("status", NAME).output
    again = run("canary", "resume", NAME, "--reason", "the client was mended")
    assert again.exit_code == 0, again.output
    assert walks.live() == {1: 0.5, 2: 0.5}
    assert walk_of(walks.endpoint).policy == report.policy
    assert run("canary", "abort", NAME, "--reason", "enough").exit_code == 0
    assert walks.endpoint.reason == "enough (this ends the canary of version 2 at 50 %)"
    assert read_releases(walks.shops.lake, NAME)["to_version"].to_list() == [1] * 6


def test_too_few_requests_wait_until_the_limit(walks: Walks) -> None:
    walks.promote(2)
    walks.answer(100)
    document, walk = walks.endpoint, walk_of(walks.endpoint)
    outcomes = read_outcomes(walks.settings.outcomes_dir, NAME, document.revision, 2)
    assert 60 < outcomes.is_canary.sum() < 200
    began = datetime.fromisoformat(document.updated_at).astimezone(UTC)
    for hours, decision in ((0, "wait"), (23.9, "wait"), (24.1, "roll back")):
        report = decide(outcomes, document, walk, began + timedelta(hours=hours))
        assert report.decision == decision, report.said
    assert "too few requests until" in report.said
    long = msgspec.structs.replace(walk, policy=msgspec.structs.replace(walk.policy, minutes=30, min_requests=50))
    for minutes, decision in ((29, "wait"), (31, "advance")):
        report = decide(outcomes, document, long, began + timedelta(minutes=minutes))
        assert report.decision == decision, report.said


def test_requests_that_nobody_could_answer_are_no_evidence(walks: Walks) -> None:
    walks.promote(2)
    walks.answer(400)
    document, walk = walks.endpoint, walk_of(walks.endpoint)
    outcomes = read_outcomes(walks.settings.outcomes_dir, NAME, document.revision, 2)
    later = datetime.fromisoformat(document.updated_at).astimezone(UTC) + timedelta(hours=1)
    assert decide(outcomes, document, walk, later).decision == "advance"
    nobody = replace(
        outcomes,
        failed=np.ones_like(outcomes.failed),
        scores=outcomes.scores[:0],
        score_request=outcomes.score_request[:0],
    )
    report = decide(nobody, document, walk, later)
    assert report.decision == "wait"
    assert "of which 0 and 0 were answered" in report.said


def test_a_recalibration_is_not_sent_back_for_moving_scores(walks: Walks) -> None:
    walks.promote(2)
    document, walk = walks.endpoint, walk_of(walks.endpoint)
    later = datetime.fromisoformat(document.updated_at).astimezone(UTC) + timedelta(hours=1)
    moved = requests(np.random.default_rng(3), 0.1, 2000, shift=3.0)
    assert decide(moved, document, walk, later).decision == "roll back"
    report = decide(moved, document, walk, later, moves_scores=True)
    assert report.decision == "advance"
    assert any("distance of the scores" in finding.said for finding in report.guards)


@pytest.mark.parametrize("way", ["traffic", "rollback", "promote", "http"])
def test_whoever_changes_what_serves_ends_the_walk(walks: Walks, run: Callable[..., Result], way: str) -> None:
    walks.promote(2)
    by_hand: dict[str, Callable[[], object]] = {
        "traffic": lambda: run("traffic", NAME, "1=70%", "3=30%", "--reason", "mine"),
        "rollback": lambda: rollback(walks.settings, NAME, by="bob", reason="mine"),
        "promote": lambda: promote_version(walks.settings, NAME, 2, by="bob", reason="mine"),
        "http": lambda: set_traffic(
            walks.store, NAME, TrafficChange(shares={3: 1.0}, expected_revision=2), by="bob (HTTP)", reason="mine"
        ),
    }
    by_hand[way]()
    served = {"traffic": {1: 0.7, 3: 0.3}, "rollback": {1: 1.0}, "promote": {2: 1.0}, "http": {3: 1.0}}
    assert walks.live() == served[way]
    assert walks.endpoint.reason == "mine (this ends the canary of version 2 at 10 %)"
    done = run("canary", "run", NAME)
    assert done.exit_code == (0 if way == "promote" else 1), done.output
    assert "mine (this ends" in done.output
    assert len(walks.alerts()) == 1
    assert advance(walks.settings, NAME).report is None
    assert tell_ends(walks.settings, NAME) == 0


def test_another_version_waits_while_one_walks(walks: Walks, run: Callable[..., Result]) -> None:
    walks.promote(2)
    decision = walks.promote(3)
    assert not decision.promoted
    assert decision.reasons[0].startswith(f"Version 3 waits. {NAME}: a canary walk of version 2 is under way (10 %")
    with pytest.raises(ReleaseConflict, match="a canary walk of version 2 is under way"):
        promote_version(walks.settings, NAME, 3, by="bob", reason="mine")
    for words in (("promote", NAME, "3"), ("canary", "start", NAME, "3"), ("canary", "resume", NAME)):
        failed = run(*words, "--reason", "now")
        assert (failed.exit_code, "a canary walk of version 2 is under way" in failed.output) == (1, True), (
            failed.output
        )
    assert walks.live() == {1: 0.9, 2: 0.1}


def test_a_walk_begins_by_hand_with_its_own_steps(walks: Walks, run: Callable[..., Result]) -> None:
    done = run("canary", "start", NAME, "3", "--steps", "20,100", "--minutes", "5", "--reason", "try")
    assert done.exit_code == 0, done.output
    assert walks.live() == {1: 0.8, 3: 0.2}
    walk = walk_of(walks.endpoint)
    assert (walk.policy.steps, walk.policy.minutes, walk.policy.min_requests) == ((20, 100), 5, 200)
    assert "nobody has looked at it yet" in run("canary", "status").output
    wrong = {
        ("start", NAME, "9"): "no version 9 is registered; there are [1, 2, 3]",
        ("start", NAME, "1"): "a canary walk of version 3 is under way",
        ("start", "nothing", "1"): "no version 1 is registered",
        ("start", NAME, "2", "--steps", "50,20"): "wanted rising percents above 0 that end with 100, found 50, 20",
        ("start", NAME, "2", "--steps", "a"): "wanted percents such as 5,25,100, found 'a'",
        ("start", NAME, "2", "--min-requests", "0"): "min_requests: 0 is out of its range",
        ("abort", "nothing"): "'nothing' was never released",
    }
    for words, message in wrong.items():
        failed = run("canary", *words, "--reason", "why")
        assert (failed.exit_code, message in failed.output) == (1, True), failed.output
    assert run("canary", "abort", NAME, "--reason", "why").exit_code == 0
    assert "no canary walk is under way" in run("canary", "abort", NAME, "--reason", "why").output
    assert "version 1 serves already" in run("canary", "start", NAME, "1", "--reason", "why").output
    assert "never released" in run("canary", "status", "nothing").output
    assert "never released" in run("canary", "run", "nothing").output


def test_an_approval_comes_first_and_then_the_walk(walks: Walks, run: Callable[..., Result]) -> None:
    gate = walks.spec.promotion.model_copy(update={"automatic": False, "approval": Approval()})
    spec = walks.spec.model_copy(update={"promotion": gate})
    walks.store.approvals.set_policy(NAME, ApprovalPolicy())
    assert "waits for an approval" in walks.promote(2, spec).reasons[0]
    refused = run("canary", "start", NAME, "2", "--reason", "around it")
    assert (refused.exit_code, "may not serve without an approval" in refused.output) == (1, True), refused.output
    assert walks.live() == {1: 1.0}
    done = run("approvals", "approve", NAME, "2", "--comment", "card read")
    assert done.exit_code == 0, done.output
    assert walks.live() == {1: 0.9, 2: 0.1}
    assert walks.endpoint.reason == "canary of version 2 begins at 10 %: approved: card read"
    walks.promote(3, spec)
    assert walks.store.approvals.get(NAME, 3) is None  # it waits, and is judged anew once the walk has ended


def test_dagster_drives_a_walk(walks: Walks) -> None:
    platform = build_resources(walks.settings)["platform"]
    assert isinstance(platform, Platform)

    def tick() -> Any:
        return canary_walks.evaluate_tick(dg.build_sensor_context(resources={"platform": platform}))

    assert tick().skip_message == "no canary walk is under way"
    walks.promote(2)
    message = tick().skip_message
    assert message is not None
    assert message.startswith(f"{NAME}: waits until ")
    for served, title in (({1: 0.5, 2: 0.5}, "goes on from 10 % to 50 %"), ({1: 1.0}, "rolled back at 50 %")):
        walks.answer(slower=1.0 if 2 in served else 4.0)
        [request] = tick().run_requests or []
        assert request.run_key is not None
        assert request.run_key.startswith(f"{NAME}@{walks.endpoint.revision}/")
        result = canary_step.execute_in_process(resources=build_resources(walks.settings))
        assert walks.live() == served
        [event] = result.asset_materializations_for_node("advance_canaries")
        assert event.asset_key == dg.AssetKey([NAME, "release"])
        assert title in str(event.description)
    assert tick().skip_message == "no canary walk is under way"
    assert len(walks.alerts()) == 1


def test_the_traffic_job_of_dagster_ends_a_walk(walks: Walks) -> None:
    walks.promote(2)
    config = {"ops": {f"{NAME}_roll_back": {"config": {"reason": "by a person"}}}}
    endpoint_jobs(walks.spec)[0].execute_in_process(run_config=config, resources=build_resources(walks.settings))
    assert walks.live() == {1: 1.0}
    assert walks.endpoint.reason == "by a person (this ends the canary of version 2 at 10 %)"


def test_a_policy_is_given_up_with_its_key(walks: Walks, trained_shops: tuple[Shops, TrainedModel]) -> None:
    assert canary_policy(walks.store, NAME) is not None
    register(walks.shops.spec, trained_shops[1], walks.evaluation, tracker=walks.shops.tracker)
    assert canary_policy(walks.store, NAME) is None
    assert "in place of version 1" in walks.promote(2).reasons[0]
    assert walks.live() == {2: 1.0}


def test_shadows_and_shares_of_before_stay_as_they_were(walks: Walks, run: Callable[..., Result]) -> None:
    set_traffic(
        walks.store, NAME, TrafficChange(shares={1: 0.75, 3: 0.25}, shadows=[2], key="shop"), by="ann", reason="split"
    )
    before = walks.endpoint
    assert run("canary", "start", NAME, "2", "--steps", "40,100", "--reason", "try").exit_code == 0
    assert walks.live() == {1: 0.45, 3: 0.15, 2: 0.4}
    assert (walks.endpoint.key, len(walks.endpoint.targets)) == ("shop", 3)
    rollback(walks.settings, NAME, by="bob", reason="back")
    assert (walks.endpoint.targets, walks.endpoint.key) == (before.targets, "shop")
