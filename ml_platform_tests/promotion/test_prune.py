"""What nothing needs goes, what stays says why, and a pruning that was killed is ended by the next."""

import fcntl
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.promotion.pinned import Pins
from ml_platform.promotion.promote import promote_version
from ml_platform.promotion.prune import PruneOutcome, plan_prune, prune
from ml_platform.promotion.prune_bundles import bundle_items
from ml_platform.promotion.prune_item import PruneItem, Retention
from ml_platform.promotion.prune_runs import _size
from ml_platform.promotion.versions import register
from ml_platform.registry.manifest import Target
from ml_platform.registry.version_facts import facts_of
from ml_platform.scoring.begun import ABANDONED, JOB, Job
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.serving.releases import bundle
from ml_platform_tests.toy_world import Shops

NAME, ALL = "order_late", Retention(timedelta(0), 0, versions=True, served=True)


@pytest.fixture
def world(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Shops:
    """Version 1 serves; another model's version 1 and 2 never did, and a bundle is nobody's."""
    trained = trained_shops[1]
    register(shops.spec, trained, shops.evaluate(trained), tracker=shops.tracker)
    promote_version(shops.settings, NAME, 1, by="ann", reason="first")
    for version in (1, 2):
        shops.store.register_version("flight_delay", version, shops.store.put_bundle(bundle(version)))
    shops.store.put_bundle(bundle(9))
    with shops.tracker.run(NAME, "old search") as search:
        shops.tracker.log_files(search, {"plots/a.txt": b"1234"})
        shops.tracker.end_run(shops.tracker.open_run(NAME, "old trial", parent=search), "FINISHED")
    return shops


def fates(items: list[PruneItem], kind: str) -> dict[str, str]:
    return {f"{item.model} {item.about}".strip(): item.keep for item in items if item.kind == kind}


def test_what_stays_says_why(world: Shops) -> None:
    everything = plan_prune(world.settings, Retention(timedelta(days=30), 5))
    assert all(item.keep for item in everything)
    assert fates(plan_prune(world.settings, ALL), "bundle") == {
        f"{NAME} version 1": f"{NAME} serves it",
        "flight_delay version 1": "",
        "flight_delay version 2": "it is the challenger",
        "no version": "",
    }
    careful = fates(plan_prune(world.settings, Retention(timedelta(0), 1)), "bundle")
    assert careful["flight_delay version 1"].startswith("a registered version is made of it")
    assert careful["no version"] == ""
    runs = fates(plan_prune(world.settings, ALL), "run")
    assert (runs[f"{NAME} old search"], runs[f"{NAME} old trial"]) == ("", "")
    assert "version 1 came from it (Production)" in runs.values()
    client = world.tracker.client  # as a refit names the run that it was made from
    search = next(item.name for item in plan_prune(world.settings, ALL) if item.about == "old search")
    client.set_tag(str(client.get_model_version(NAME, "1").run_id), "judged_run", search)
    runs = fates(plan_prune(world.settings, ALL), "run")
    assert runs[f"{NAME} old trial"] == "version 1 came from it (Production)"


def test_a_version_without_bundle_says_who_and_the_rest_works_on(world: Shops) -> None:
    items = plan_prune(world.settings, ALL)
    digest = world.store.versions("flight_delay")[1]
    going = [item for item in items if not item.keep]
    assert prune(world.settings, items, by="ann", reason="disk") == PruneOutcome(
        len(going), sum(one.size for one in going)
    )
    assert not world.store.bundle_path(digest).exists()
    assert facts_of(world.store, "flight_delay", 1).missing[0].startswith("its bundle was removed by ann at ")
    with pytest.raises(LookupError, match=r"bundle \w+ was removed by ann .*\(disk\); train the model again"):
        world.store.load_manifest(digest)
    assert world.store.load_manifest(world.store.versions(NAME)[1]).model == NAME
    again = plan_prune(world.settings, ALL)
    assert [item for item in again if not item.keep] == []
    assert prune(world.settings, items, by="bob", reason="disk") == PruneOutcome(0, 0)  # planned before, gone by now
    world.store.put_bundle(bundle(1))  # restored, or trained again
    assert facts_of(world.store, "flight_delay", 1).bundle_bytes is not None


def test_a_killed_pruning_is_ended_by_the_next(world: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    items = plan_prune(world.settings, ALL)
    run = next(item for item in items if item.kind == "run" and item.about == "old search")
    with monkeypatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("ml_platform.promotion.prune_bundles.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(world.settings, items, by="ann", reason="disk")
    client = world.tracker.client  # and one that was killed between the run's deletion and that of its files
    client.set_tag(run.name, "pruned_by", "ann")
    client.delete_run(run.name)
    location = client.get_run(run.name).info.artifact_uri
    assert _size(world.tracker, location) == 4
    left = list((world.store.folder / "bundles").glob(".staged-removed-*"))
    assert len(left) == 1
    prune(world.settings, plan_prune(world.settings, ALL), by="ann", reason="disk")
    assert not left[0].exists()
    assert _size(world.tracker, location) == 0
    assert sorted(path.name for path in (world.store.folder / "bundles").iterdir()) == sorted(
        [world.store.versions(NAME)[1], world.store.versions("flight_delay")[2]]
    )


def test_two_at_once_remove_everything_once(world: Shops) -> None:
    items = plan_prune(world.settings, ALL)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda by: prune(world.settings, items, by=by, reason="disk"), ("ann", "bob")))
    assert sum(one.items for one in done) == sum(not item.keep for item in items)
    assert [item for item in plan_prune(world.settings, ALL) if not item.keep] == []


def test_what_serves_since_the_plan_stays(world: Shops) -> None:
    items = plan_prune(world.settings, ALL)
    target = Target(version=1, digest=world.store.versions("flight_delay")[1])
    world.store.publish("flight_delay", [target], reason="meanwhile", by="bob")
    prune(world.settings, items, by="ann", reason="disk")
    assert world.store.load_manifest(world.store.versions("flight_delay")[1]).model == "flight_delay"


def test_a_terminal_tells_first(world: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(world.settings.home))

    def run(*words: str) -> str:
        return CliRunner().invoke(app, ["models", "prune", *words]).output

    words = ["--younger-than", "0", "--keep-last", "0", "--bundles"]
    assert "To remove them: --yes" in run(*words)
    assert world.store.bundle_path(world.store.versions("flight_delay")[1]).exists()
    said = run(*words, "--yes", "--reason", "disk")
    assert ("bytes are free" in said, "would go" in said, "removed\n" in said) == (True, False, False)
    assert not world.store.bundle_path(world.store.versions("flight_delay")[1]).exists()
    assert "Nothing was pruned: no model 'nope'" in run("nope")


def test_files_of_automl_and_searches_go_and_what_is_in_use_stays(world: Shops) -> None:
    home = world.settings.home
    for start in ("20240101T000000", "20240201T000000"):
        folder = home / "automl" / NAME / start
        (folder / "plots").mkdir(parents=True)
        (folder / "plots" / "a.png").write_bytes(b"12345")
        (folder / "leaderboard.json").write_text("{}")
    shutil.rmtree(world.settings.studies_dir, ignore_errors=True)  # of the world's own training
    studies = world.settings.studies_dir / NAME
    studies.mkdir(parents=True)
    for key in ("old", "held"):
        (studies / f"{key}.journal").write_text("{}\n")
    served, gone = world.store.versions(NAME)[1], "f" * 64
    intervals = world.store.folder / "conformal"
    intervals.mkdir(exist_ok=True)
    for digest in (served, gone):
        (intervals / f"{digest}.json").write_text("{}")
    young = [item for item in plan_prune(world.settings, Retention(timedelta(days=30), 5)) if item.kind != "intervals"]
    assert all(item.keep for item in young)
    with (studies / "held.journal").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        items = [item for item in plan_prune(world.settings, ALL) if item.kind not in {"bundle", "run"}]
        assert {(item.kind, item.name[:15]): item.keep for item in items} == {
            ("automl", "20240101T000000"): "",
            ("automl", "20240201T000000"): "the newest of its name: `ml-platform automl` shows and adopts it",
            ("study", "old"): "",
            ("study", "held"): "a search goes on with it",
            ("intervals", served[:15]): "its bundle is there",
            ("intervals", gone[:15]): "",
        }
        assert {item.model for item in plan_prune(world.settings, ALL, "flight_delay")} == {"flight_delay"}
        freed = prune(world.settings, items, by="ann", reason="disk")
    assert freed == PruneOutcome(3, 5 + 2 + 3 + 2)
    assert [path.name for path in (home / "automl" / NAME).iterdir()] == ["20240201T000000"]
    assert [path.name for path in studies.iterdir()] == ["held.journal"]
    assert [path.stem for path in intervals.iterdir()] == [served]


def test_what_a_definition_or_a_begun_scoring_names_stays(world: Shops, tmp_path: Path) -> None:
    defs = tmp_path / "project" / "defs"
    (defs / "report").mkdir(parents=True)
    (defs / "report" / "daily.sql").write_text("-- 1\nSELECT predict('flight_delay@v1', t) FROM t -- my_flight_delay@2")
    job = world.settings.scoring_dir / "abc" / JOB
    job.parent.mkdir(parents=True)
    begun = Job(scored_at=datetime.now(UTC), model="flight_delay", version=2, source="raw/flights")
    job.write_bytes(msgspec.json.encode(begun))
    pins = Pins(world.settings, defs)
    assert pins.of("flight_delay", 1) == ["defs/report/daily.sql, line 2, names flight_delay@v1"]
    [scoring] = pins.of("flight_delay", 2)
    assert scoring.startswith("a scoring of raw/flights by version 2 was begun at ")
    assert len(pins.of("flight_delay")) == 2
    assert pins.of(NAME) == []
    fate = {item.about: item.keep for item in bundle_items(world.store, ALL, "flight_delay", pins=pins)}
    assert fate["version 1"].endswith("names flight_delay@v1")
    long_ago = msgspec.structs.replace(begun, scored_at=datetime.now(UTC) - ABANDONED)
    job.write_bytes(msgspec.json.encode(long_ago))
    assert Pins(world.settings, defs).of("flight_delay", 2) == []
