"""A version that passed the gate waits for a person: asked by its run, answered in a terminal or in Dagster."""

from collections.abc import Callable

import dagster as dg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance.ledger_check import verify_ledger
from ml_platform.orchestration.endpoint_jobs import endpoint_jobs
from ml_platform.orchestration.registry_sync import answers_behind
from ml_platform.orchestration.resources import Platform, build_resources
from ml_platform.processes.identity import this_user
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.registry.ledger import read_ledger
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.promotion import Approval, Promotion
from ml_platform.training.documents import ReleaseDecision, TrainedModel
from ml_platform_tests.toy_world import Shops

ME = this_user()


def spec_of(shops: Shops, **approval: object) -> ModelSpec:
    gate = shops.spec.promotion.model_dump() | {"automatic": False, "approval": Approval(**approval)}
    return shops.spec.model_copy(update={"promotion": Promotion(**gate)})


def release(shops: Shops, trained: TrainedModel, spec: ModelSpec, by: str = "dagster run 1") -> ReleaseDecision:
    evaluation = shops.evaluate(trained).model_copy(update={"promote": True, "reasons": ("because",)})
    version = register(spec, trained, evaluation, tracker=shops.tracker)
    return promote(shops.settings, spec, version, evaluation, tracker=shops.tracker, by=by)


@pytest.fixture
def run(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def waiting(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Shops:
    """Version 1 passed the gate and waits for an approval."""
    decision = release(shops, trained_shops[1], spec_of(shops))
    assert not decision.promoted
    assert "waits for an approval until" in decision.reasons[0]
    return shops


def actions(shops: Shops) -> list[tuple[str, str]]:
    return read_ledger(shops.lake).sort("number").select("action", "by").rows()


def test_a_person_approves_in_a_terminal_and_it_serves(waiting: Shops, run: Callable[..., Result]) -> None:
    assert "order_late version 1: waits, until" in run("approvals", "list").output
    refused = run("promote", "order_late", "1", "--reason", "in a hurry")
    assert (refused.exit_code, "may not serve without an approval" in refused.output) == (1, True), refused.output
    assert waiting.store.endpoint("order_late") is None
    done = run("approvals", "approve", "order_late", "1", "--comment", "card read")
    assert done.exit_code == 0, done.output
    assert "order_late serves version 1 (live 100%), revision 1" in done.output
    again = run("approvals", "approve", "order_late", "1", "--comment", "card read")
    assert (again.exit_code, again.output) == (0, done.output)
    assert waiting.store.revision("order_late") == 1
    serves = run("approvals", "request", "order_late", "1", "--reason", "what for")
    assert "it serves already (revision 1), and needs no approval" in serves.output
    document = waiting.store.document("order_late")
    assert document is not None
    assert (document.updated_by, document.reason) == (ME, "approved: card read")
    assert actions(waiting) == [
        ("approval policy", ME),
        ("registration", ME),
        ("approval requested", "dagster run 1"),
        ("approval", ME),
        ("promotion", ME),
    ]
    assert verify_ledger(waiting.lake, waiting.settings) == (5, [])
    assert run("approvals", "list").output == "No version waits for an approval.\n"


def test_who_asked_may_not_approve(waiting: Shops, run: Callable[..., Result]) -> None:
    rejected = run("approvals", "reject", "order_late", "1", "--comment", "slices")
    assert (rejected.exit_code, rejected.output) == (0, f"order_late version 1 is rejected by {ME}\n")
    assert run("approvals", "request", "order_late", "1", "--reason", "slices are fine").exit_code == 0
    mine = run("approvals", "approve", "order_late", "1", "--comment", "mine")
    assert (mine.exit_code, f"{ME} asked for it" in mine.output) == (1, True), mine.output
    assert waiting.store.endpoint("order_late") is None
    assert "rejected" in run("approvals", "list", "--all").output or "waits" in run("approvals", "list").output
    for words in (("approve", "order_late", "9"), ("reject", "nothing", "1")):
        failed = run("approvals", *words, "--comment", "what")
        assert failed.exit_code == 1
        assert f"{words[1]} version {words[2]}: " in failed.output
    failed = run("approvals", "request", "order_late", "9", "--reason", "what")
    assert "order_late version 9: no version 9 is registered; there are [1]" in failed.output


def test_a_policy_that_is_given_up_is_in_the_ledger(waiting: Shops, trained_shops: tuple[Shops, TrainedModel]) -> None:
    register(waiting.spec, trained_shops[1], waiting.evaluate(trained_shops[1]), tracker=waiting.tracker)
    assert waiting.store.approvals.policy("order_late") is None
    entries = read_ledger(waiting.lake).filter(action="approval policy")["reason"].to_list()
    assert entries == ["no approval → approval, four eyes, 14 days", "approval, four eyes, 14 days → no approval"]


def test_a_damaged_request_is_told(waiting: Shops, run: Callable[..., Result]) -> None:
    (waiting.store.folder / "approvals" / "order_late" / "1.json").write_text("{")
    failed = run("approvals", "list")
    assert (failed.exit_code, "not a request of an approval" in failed.output) == (1, True), failed.output


def test_a_run_that_is_repeated_asks_once(
    waiting: Shops, trained_shops: tuple[Shops, TrainedModel], run: Callable[..., Result]
) -> None:
    release(waiting, trained_shops[1], spec_of(waiting), by="dagster run 2")
    assert [action for action, _ in actions(waiting)].count("approval requested") == 1
    waiting.store.approvals.decide("order_late", 1, by="bob (HTTP)", approve=False, comment="over HTTP")
    platform = build_resources(waiting.settings)["platform"]
    assert isinstance(platform, Platform)
    assert answers_behind(platform) == {"order_late version 1": 2}  # what serving cannot write, the sensor follows


def test_dagster_takes_an_answer_with_a_name(waiting: Shops) -> None:
    job = endpoint_jobs(spec_of(waiting))[-1]
    config = {"version": 1, "approve": True, "by": "eve", "comment": "looked at it"}
    run_config = {"ops": {"order_late_answer": {"config": config}}}
    result = job.execute_in_process(run_config=run_config, resources=build_resources(waiting.settings))
    assert result.success
    document = waiting.store.document("order_late")
    assert document is not None
    assert document.updated_by.startswith("eve (dagster run ")
    named = spec_of(waiting, approvers=("carol",))
    waiting.store.approvals.set_policy("order_late", ApprovalPolicy(approvers=("carol",)))
    with pytest.raises(dg.Failure, match="cannot check who eve is"):
        endpoint_jobs(named)[-1].execute_in_process(run_config=run_config, resources=build_resources(waiting.settings))
