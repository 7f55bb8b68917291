"""Changes of traffic: what is refused, who wins, what the ledger and the registry say afterwards."""

import threading
from collections.abc import Callable

import dagster as dg
import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.orchestration.endpoint_jobs import endpoint_jobs
from ml_platform.orchestration.registry_sync import endpoints_behind, registry_behind, registry_sync
from ml_platform.orchestration.resources import Platform, build_resources
from ml_platform.promotion.promote import promote, promote_version, rollback
from ml_platform.promotion.versions import register
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.ledger import read_releases
from ml_platform.registry.pins import pinned_versions
from ml_platform.registry.releases import ReleaseConflict
from ml_platform.registry.traffic import TrafficChange, set_traffic, withdraw
from ml_platform.training.documents import RegisteredVersion, TrainedModel
from ml_platform_tests.toy_world import Shops

NAME = "order_late"


@pytest.fixture
def released(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Shops:
    """Version 1 serves; versions 2 and 3, the same bundle, are registered."""
    trained = trained_shops[1]
    evaluation = shops.evaluate(trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    for _ in range(2):
        created = shops.tracker.client.create_model_version(
            version.model, version.model_uri, tags={"bundle_digest": version.digest}
        )
        shops.store.register_version(NAME, int(created.version), version.digest)
    return shops


def champion(shops: Shops) -> str | None:
    found = shops.tracker.client.get_registered_model(NAME).aliases.get("champion")
    return None if found is None else str(found)


def test_targets_are_set_whole_and_say_who_and_why(released: Shops) -> None:
    change = TrafficChange(shares={2: 0.1, 1: 0.9}, shadows=[3], key="shop", expected_revision=1)
    document = set_traffic(released.store, NAME, change, by="bob", reason="try 2")
    assert [(one.version, one.share, one.mode) for one in document.targets] == [
        (1, 0.9, "live"),
        (2, 0.1, "live"),
        (3, 0.0, "shadow"),
    ]
    assert (document.revision, document.key, document.action) == (2, "shop", "traffic")
    assert (document.updated_by, document.reason) == ("bob", "try 2")
    assert released.store.endpoint(NAME) == document


def test_what_serves_already_makes_no_revision(released: Shops) -> None:
    same = TrafficChange(shares={1: 1.0})
    before = released.store.document(NAME)
    assert set_traffic(released.store, NAME, same, by="bob", reason="again") == before
    canary = TrafficChange(shares={1: 0.9, 2: 0.1}, shadows=[3], key="shop")
    changed = set_traffic(released.store, NAME, canary, by="bob", reason="canary")
    assert set_traffic(released.store, NAME, canary, by="eve", reason="canary") == changed
    for other in (msgspec.structs.replace(canary, key=None), msgspec.structs.replace(canary, names={1: "steady"})):
        revision = released.store.revision(NAME)
        assert set_traffic(released.store, NAME, other, by="bob", reason="other").revision == revision + 1
    with pytest.raises(ReleaseConflict):
        set_traffic(released.store, NAME, msgspec.structs.replace(other, expected_revision=1), by="bob", reason="late")


def test_a_rollback_goes_to_the_last_state_that_differs(released: Shops) -> None:
    settings, store = released.settings, released.store
    with pytest.raises(LookupError, match="is all that ever served"):
        rollback(settings, NAME, by="bob", reason="worse")
    promote_version(settings, NAME, 1, by="ann", reason="the same again")  # a revision, and no other state
    with pytest.raises(LookupError, match="there is nothing else to go back to"):
        rollback(settings, NAME, by="bob", reason="worse")
    set_traffic(store, NAME, TrafficChange(shares={1: 0.9, 2: 0.1}, key="shop"), by="ann", reason="canary")
    promote_version(settings, NAME, 3, by="ann", reason="best")
    promote_version(settings, NAME, 3, by="ann", reason="best, I said")
    back = rollback(settings, NAME, by="bob", reason="worse")
    assert ([target.version for target in back.targets], back.key) == ([1, 2], "shop")
    assert [target.version for target in rollback(settings, NAME, by="bob", reason="undo").targets] == [3]
    assert [target.version for target in rollback(settings, NAME, by="bob", reason="redo").targets] == [1, 2]


def test_a_rollback_passes_over_withdrawals(released: Shops) -> None:
    settings, store = released.settings, released.store
    withdraw(store, NAME, by="ann", reason="pause")
    set_traffic(store, NAME, TrafficChange(shares={1: 1.0}), by="ann", reason="back")
    with pytest.raises(LookupError, match="is all that ever served"):  # before the withdrawal it was the same
        rollback(settings, NAME, by="bob", reason="worse")
    withdraw(store, NAME, by="ann", reason="pause")
    assert rollback(settings, NAME, by="bob", reason="put it back").targets[0].version == 1


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (TrafficChange(shares={1: 0.5, 2: 0.4}), ValueError, "add up to 1"),
        (TrafficChange(shares={1: 1.5, 2: -0.5}), ValueError, "above 0 and up to 1"),
        (TrafficChange(shares={1: 0.0}), ValueError, "above 0 and up to 1"),
        (TrafficChange(shares={1: float("nan")}), ValueError, "above 0 and up to 1"),
        (TrafficChange(shares={}), ValueError, "at least one version"),
        (TrafficChange(shares={1: 1.0}, shadows=[1]), ValueError, "choose one"),
        (TrafficChange(shares={9: 1.0}), LookupError, "no version 9 in the release store; there are 1, 2, 3"),
        (TrafficChange(shares={1: 1.0}, shadows=[8]), LookupError, "no version 8"),
        (TrafficChange(shares={1: 1.0}, key="nope"), ValueError, "has no 'nope', it has order_id"),
        (TrafficChange(shares={1: 1.0}, expected_revision=7), ReleaseConflict, "revision 7, but revision 1"),
        (TrafficChange(shares={1: 1.0}, model="other"), LookupError, "other: no version 1"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    released: Shops, change: TrafficChange, error: type[Exception], told: str
) -> None:
    before = released.store.endpoint(NAME)
    name = "another" if change.model else NAME
    with pytest.raises(error, match=told):
        set_traffic(released.store, name, change, by="bob", reason="try")
    with pytest.raises(ValueError, match="wants a reason"):
        set_traffic(released.store, NAME, TrafficChange(shares={1: 1.0}), by="bob", reason=" ")
    assert released.store.endpoint(NAME) == before


def test_a_damaged_bundle_takes_no_traffic(released: Shops, trained_shops: tuple[Shops, TrainedModel]) -> None:
    path = released.store.bundle_path(trained_shops[1].digest) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleRefused, match="altered or damaged"):
        set_traffic(released.store, NAME, TrafficChange(shares={2: 1.0}), by="bob", reason="try")


def test_of_eight_that_decide_on_the_same_revision_one_wins(released: Shops) -> None:
    start, ends = threading.Barrier(8), []

    def attempt(number: int) -> None:
        start.wait()
        change = TrafficChange(shares={1: 1 - number / 10, 2: number / 10}, expected_revision=1)
        try:
            set_traffic(released.store, NAME, change, by=f"person {number}", reason="race")
            ends.append("won")
        except ReleaseConflict:
            ends.append("told")

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["told"] * 7 + ["won"]
    assert released.store.revision(NAME) == 2


def test_an_endpoint_of_a_name_of_its_own(released: Shops) -> None:
    store = released.store
    change = TrafficChange(shares={2: 1.0}, model=NAME, expected_revision=0)
    document = set_traffic(store, "trial-2", change, by="bob", reason="for one customer")
    assert (document.name, document.model, document.revision) == ("trial-2", NAME, 1)
    assert sorted(store.endpoints()) == [NAME, "trial-2"]
    assert set_traffic(store, "trial-2", TrafficChange(shares={3: 1.0}), by="bob", reason="x").model == NAME
    with pytest.raises(ValueError, match="is of the model 'order_late', not 'trial-2'"):
        store.publish("trial-2", (), reason="x", by="ann", action="withdrawal")
    store.register_version("other", 1, "f" * 64)
    with pytest.raises(ValueError, match="is a model of its own"):
        set_traffic(store, "other", change, by="bob", reason="x")


def test_what_is_withdrawn_stays_out_until_somebody_puts_it_back(
    released: Shops, trained_shops: tuple[Shops, TrainedModel]
) -> None:
    store, trained = released.store, trained_shops[1]
    pins = pinned_versions(store)
    withdraw(store, NAME, by="bob", reason="law")
    assert (store.endpoint(NAME), store.endpoints(), store.revision(NAME)) == (None, {}, 2)
    assert pinned_versions(store) == pins
    with pytest.raises(LookupError, match="nothing of this name serves"):
        withdraw(store, NAME, by="bob", reason="again")
    evaluation = released.evaluate(trained)
    assert evaluation.revision == 2
    version = RegisteredVersion(
        model=NAME, version=2, digest=trained.digest, model_digest=trained.model_digest, run_id="", model_uri="", url=""
    )
    decision = promote(released.settings, released.spec, version, evaluation, tracker=released.tracker, by="dagster")
    assert (decision.promoted, store.endpoint(NAME)) == (False, None)
    assert "taken out of service by bob (law)" in decision.reasons[0]
    back = rollback(released.settings, NAME, by="ann", reason="allowed again")
    assert (back.revision, [target.version for target in back.targets]) == (3, [1])
    assert read_releases(released.lake)["action"].to_list() == ["promotion", "withdrawal", "rollback"]
    assert champion(released) == "1"


def test_ledger_and_aliases_follow_what_was_changed_without_them(released: Shops) -> None:
    """As the serving process does it: the store alone is written; the sensor asks for the run that makes up for it."""
    store, platform = released.store, Platform(home=str(released.settings.home))
    resources = build_resources(released.settings)
    sensor = dg.build_sensor_context(resources={"platform": platform})
    assert registry_behind.evaluate_tick(sensor).skip_message == "ledger and registry have every change of what serves"
    set_traffic(store, NAME, TrafficChange(shares={1: 0.9, 2: 0.1}), by="bob (HTTP)", reason="canary")
    set_traffic(store, NAME, TrafficChange(shares={2: 1.0}), by="bob (HTTP)", reason="all of it")
    set_traffic(store, "trial", TrafficChange(shares={3: 1.0}, model=NAME), by="bob (HTTP)", reason="trial")
    assert champion(released) == "1"
    assert endpoints_behind(platform) == {NAME: 3, "trial": 1}
    requests = registry_behind.evaluate_tick(dg.build_sensor_context(resources={"platform": platform})).run_requests
    assert requests is not None
    assert (requests[0].run_key or "").startswith("order_late@3,trial@1/")
    with dg.instance_for_test() as instance:
        assert registry_sync.execute_in_process(instance=instance, resources=resources).success
        noted = instance.get_latest_materialization_event(dg.AssetKey([NAME, "release"]))
        assert noted is not None
    assert endpoints_behind(platform) == {}
    assert champion(released) == "2"
    ledger = read_releases(released.lake).filter(by="bob (HTTP)")
    assert ledger.select("endpoint", "revision", "action", "reason", "serving", "to_version").sort(
        "endpoint", "revision"
    ).rows() == [
        (NAME, 2, "traffic", "canary", "version 1 (live 90%), version 2 (live 10%)", 1),
        (NAME, 3, "traffic", "all of it", "version 2 (live 100%)", 2),
        ("trial", 1, "traffic", "trial", "version 3 (live 100%)", 3),
    ]


def test_the_job_sets_shares_from_its_configuration(released: Shops) -> None:
    _, job, _ = endpoint_jobs(released.spec)
    assert job.name == "order_late_traffic"
    config = {"shares": {"1": 0.75, "2": 0.25}, "shadows": [3], "reason": "canary"}
    done = job.execute_in_process(
        resources=build_resources(released.settings),
        run_config={"ops": {"order_late_set_traffic": {"config": config}}},
    )
    assert done.success
    document = released.store.endpoint(NAME)
    assert document is not None
    assert [(one.version, one.share) for one in document.targets] == [(1, 0.75), (2, 0.25), (3, 0.0)]
    assert read_releases(released.lake)["serving"].to_list()[-1].endswith("version 3 (shadow)")


@pytest.fixture
def run(released: Shops, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(released.settings.home))
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_the_command_shows_and_changes(released: Shops, run: Callable[..., Result]) -> None:
    assert "order_late: version 1 (live 100%); revision 1" in run("traffic", NAME).output
    done = run("traffic", NAME, "1=90%", "2=0.1", "--shadow", "3", "--reason", "canary")
    assert done.exit_code == 0, done.output
    assert "version 1 (live 90%), version 2 (live 10%), version 3 (shadow); revision 2" in done.output
    assert read_releases(released.lake)["reason"].to_list()[-1] == "canary"
    again = run("traffic", NAME, "1=90%", "2=0.1", "--shadow", "3", "--reason", "canary, again")
    assert (again.exit_code, "nothing changed" in again.output, "revision 2" in again.output) == (0, True, True)
    for arguments, told in (
        (["1=90%", "--reason", "x"], "add up to 1"),
        (["1=100%"], "wants a reason"),
        (["1:90"], "found '1:90'"),
        (["1=50%", "1=50%"], "there twice"),
        (["1=100%", "--reason", "x", "--revision", "1"], "revision 2 is current"),
        (["--shadow", "3"], "wanted shares too"),
    ):
        failed = run("traffic", NAME, *arguments)
        assert failed.exit_code == 1
        assert told in failed.output
    assert released.store.revision(NAME) == 2
    promote_version(released.settings, NAME, 3, by="ann", reason="done")
    assert "may serve too: 1, 2" in run("traffic", NAME).output
    assert run("traffic", "nothing").exit_code == 1
