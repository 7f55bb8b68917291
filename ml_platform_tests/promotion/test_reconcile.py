"""Aliases, stages, runs and bundles are brought back to what serves, whatever was left behind."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform.doctor.databases import tracking
from ml_platform.orchestration.maintenance import registry_maintenance
from ml_platform.orchestration.registry_sync import endpoints_behind
from ml_platform.orchestration.resources import Platform, build_resources
from ml_platform.promotion.promote import change_traffic, promote_version, sync_registry
from ml_platform.promotion.reconcile import reconcile_registry
from ml_platform.promotion.sweep import sweep_bundles
from ml_platform.promotion.versions import register
from ml_platform.registry.dead_runs import DeadRun, close_dead_runs_at_start
from ml_platform.registry.ledger import record_release
from ml_platform.registry.manifest import Endpoint, Target
from ml_platform.registry.stages import desired_state
from ml_platform.registry.traffic import TrafficChange
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops

OPEN_RUN = """
import sys
from pathlib import Path
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
with Tracker(Settings(home=Path(sys.argv[1]))).run("order_late", "interrupted") as run:
    print(run, flush=True)
    input()
"""


def _document(revision: int, *targets: Target, **changes: Any) -> Endpoint:
    about: dict[str, Any] = {"updated_at": "2024-01-01T00:00:00Z", "updated_by": "ann", "reason": "test"}
    return Endpoint(model="m", revision=revision, targets=targets, **about, **changes)


def _live(version: int, share: float = 1.0) -> Target:
    return Target(version=version, digest="", share=share)


def _shadow(version: int) -> Target:
    return Target(version=version, digest="", share=0, mode="shadow")


@pytest.mark.parametrize(
    ("histories", "stages", "aliases"),
    [
        ({}, "NNS", {"challenger": 3}),
        ({"m": [_document(1, _live(1))]}, "PNS", {"champion": 1, "challenger": 3}),
        ({"m": [_document(1, _live(2)), _document(2, _live(3))]}, "NAP", {"champion": 3}),
        # After a rollback the newest version is no challenger: it has had its turn.
        ({"m": [_document(1, _live(2)), _document(2, _live(3)), _document(3, _live(2))]}, "NPA", {"champion": 2}),
        ({"m": [_document(1, _live(1, 0.4), _live(3, 0.6), _shadow(2))]}, "PSP", {"champion": 3}),
        ({"m": [_document(1, _live(1)), _document(2)]}, "ANS", {"challenger": 3}),
        ({"m": [_document(1, _live(1))], "trial": [_document(1, _live(2), own_name="trial")]}, "PPS", None),
    ],
)
def test_stages_and_aliases_are_derived_from_what_serves(histories, stages, aliases) -> None:
    words = {"A": "Archived", "N": "None", "S": "Staging", "P": "Production"}
    state = desired_state("m", [1, 2, 3], histories)
    assert state.stages == {number + 1: words[letter] for number, letter in enumerate(stages)}
    assert state.aliases == (aliases or {"champion": 1, "challenger": 3})


@pytest.fixture
def two_versions(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Shops:
    """Version 1 serves; version 2, the same bundle, is the challenger."""
    trained = trained_shops[1]
    version = register(shops.spec, trained, shops.evaluate(trained), tracker=shops.tracker)
    promote_version(shops.settings, "order_late", 1, by="ann", reason="first")
    client = shops.tracker.client
    client.create_model_version("order_late", version.model_uri, tags={"bundle_digest": version.digest})
    shops.store.register_version("order_late", 2, version.digest)
    assert reconcile_registry(shops.tracker, "order_late") == [
        "version 2: no stage → Staging",
        "challenger: none → version 2",
    ]
    return shops


def _aliases(shops: Shops) -> dict[str, int]:
    aliases = shops.tracker.client.get_registered_model("order_late").aliases
    return {alias: int(version) for alias, version in aliases.items()}


def test_a_promoter_killed_between_ledger_and_alias_is_made_up_for(two_versions: Shops) -> None:
    platform = build_resources(two_versions.settings)["platform"]
    assert isinstance(platform, Platform)
    assert endpoints_behind(platform) == {}
    digest = two_versions.store.versions("order_late")[1]
    document = two_versions.store.publish("order_late", [Target(version=2, digest=digest)], reason="better", by="bob")
    record_release(two_versions.lake, two_versions.store, document)  # and no further
    assert endpoints_behind(platform) == {"order_late": 2}
    sync_registry(two_versions.settings, "order_late")
    assert _aliases(two_versions) == {"champion": 2}
    assert endpoints_behind(platform) == {}


def test_what_a_person_changed_in_mlflow_is_corrected_and_said(two_versions: Shops) -> None:
    client = two_versions.tracker.client
    client.set_registered_model_alias("order_late", "champion", "2")
    client.set_registered_model_alias("order_late", "theirs", "2")
    client.set_model_version_tag("order_late", "1", "stage", "Archived")
    result = dg.materialize([registry_maintenance], resources=build_resources(two_versions.settings))
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.description == (
        "order_late: version 1: Archived → Production; order_late: champion: version 2 → version 1"
    )
    assert _aliases(two_versions) == {"champion": 1, "challenger": 2, "theirs": 2}
    assert reconcile_registry(two_versions.tracker, "order_late") == []


def test_a_version_that_serves_and_is_not_registered_is_an_error(two_versions: Shops) -> None:
    two_versions.tracker.client.delete_registered_model_alias("order_late", "champion")
    two_versions.tracker.client.delete_model_version("order_late", "1")
    with pytest.raises(LookupError, match=r"version 1 serves, and the registry has \[2\]"):
        reconcile_registry(two_versions.tracker, "order_late")


def test_shares_and_shadows_show_in_the_stages(two_versions: Shops) -> None:
    change_traffic(two_versions.settings, "order_late", TrafficChange(shares={1: 0.9, 2: 0.1}), by="ann", reason="try")
    client = two_versions.tracker.client
    stages = [client.get_model_version("order_late", number).tags["stage"] for number in ("1", "2")]
    assert (stages, _aliases(two_versions)) == (["Production", "Production"], {"champion": 1})


def test_a_version_judged_again_tells_the_newest_verdict(
    shops: Shops, trained_shops: tuple[Shops, TrainedModel]
) -> None:
    trained = trained_shops[1]
    evaluation = shops.evaluate(trained)
    client = shops.tracker.client
    for promote, verdict in ((True, "passed"), (False, "refused")):
        judged = evaluation.model_copy(update={"promote": promote, "reasons": (f"It {verdict}.",)})
        assert register(shops.spec, trained, judged, tracker=shops.tracker).version == 1
        version = client.get_model_version("order_late", "1")
        assert (version.tags["gate"], version.tags["stage"]) == (verdict, "Staging")
        assert f"It {verdict}." in version.description


def test_a_run_whose_process_was_killed_is_closed(shops: Shops) -> None:
    command = [sys.executable, "-c", OPEN_RUN, str(shops.settings.home)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        with shops.tracker.run("order_late", "alive"):
            assert shops.tracker.close_dead_runs() == []
            process.kill()
            process.wait()
            assert shops.tracker.close_dead_runs() == [run_id]
            assert shops.tracker.close_dead_runs() == []
    run = shops.tracker.client.get_run(run_id)
    assert (run.info.status, "process ended" in run.data.tags["error"]) == ("KILLED", True)


def test_a_start_and_the_doctor_see_what_a_kill_left_open(shops: Shops) -> None:
    assert close_dead_runs_at_start(shops.settings) == []
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_RUN, str(shops.settings.home)], stdin=-1, stdout=-1, text=True
    ) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        assert close_dead_runs_at_start(shops.settings) == []  # it lives
        process.kill()
    warned = [one for one in tracking(shops.settings) if one.status == "warning"]
    assert [run_id in one.message and "make dev ends it" in one.remedy for one in warned] == [True]
    assert close_dead_runs_at_start(shops.settings) == [DeadRun(run_id, "interrupted", "order_late")]
    assert close_dead_runs_at_start(shops.settings) == []
    assert shops.tracker.client.get_run(run_id).info.status == "KILLED"
    assert [one.status for one in tracking(shops.settings)] == ["ok"]


def test_the_retry_of_a_training_closes_what_the_kill_left_open(shops: Shops) -> None:
    program = [sys.executable, "-c", OPEN_RUN, str(shops.settings.home)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        process.kill()
    with shops.tracker.run("order_minutes", "another model"):
        assert shops.tracker.client.get_run(run_id).info.status == "RUNNING"
    with shops.tracker.run("order_late", "retry"):
        assert shops.tracker.client.get_run(run_id).info.status == "KILLED"


def test_bundles_that_nothing_names_are_removed_after_their_grace(two_versions: Shops) -> None:
    store = two_versions.store
    served = store.versions("order_late")[1]
    orphan, staged = store.folder / "bundles" / ("0" * 64), store.folder / "bundles" / ".staged-killed"
    for folder in (orphan, staged):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"1234")
    assert sweep_bundles(store).bundles == ()
    for folder in (orphan, staged, store.bundle_path(served)):
        os.utime(folder, (0, 0))
    swept = sweep_bundles(store, grace=timedelta(days=7))
    assert (swept.bundles, swept.unfinished, swept.freed_bytes) == (("0" * 64,), 1, 8)
    assert not orphan.exists()
    assert not staged.exists()
    assert store.load_manifest(served).model == "order_late"


def test_a_bundle_named_by_the_manifest_of_a_served_one_stays(two_versions: Shops) -> None:
    store = two_versions.store
    named = "a" * 64
    Path(store.bundle_path(named)).mkdir()
    manifest = store.bundle_path(store.versions("order_late")[1]) / "manifest.json"
    manifest.write_bytes(
        manifest.read_bytes().replace(b'"code_version"', f'"judged":"{named}","code_version"'.encode())
    )
    for folder in (store.folder / "bundles").iterdir():
        os.utime(folder, (0, 0))
    assert sweep_bundles(store).bundles == ()
