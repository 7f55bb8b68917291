"""A model gets from one environment into the next whole or not at all, verified, and once, however often repeated."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.features.online.publish import publish_view
from ml_platform.features.online.sqlite_store import SqliteOnlineStore
from ml_platform.governance.audit_table import read_audit, verify_audit
from ml_platform.governance.ledger_check import verify_ledger
from ml_platform.inference.scorer import Scorer
from ml_platform.promotion.candidate import parse_reference
from ml_platform.promotion.card import write_card
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform.registry.digests import bundle_digest, contract_digest, model_digest
from ml_platform.registry.ledger import read_releases
from ml_platform.registry.model_card import load_card
from ml_platform.registry.origins import origin_of
from ml_platform.registry.pins import pinned_versions
from ml_platform.settings import Settings
from ml_platform.sqlite_uri import sqlite_file
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.ports import free_port
from ml_platform_tests.toy_world import Shops

ME = pwd.getpwuid(os.getuid()).pw_name
FILE = """
dev: {{home: dev}}
staging: {{home: staging}}
prod: {{home: prod, promoters: [{promoter}]}}
same: {{home: dev}}
"""


@dataclass(frozen=True)
class Environments:
    """A project with a model that serves in dev, and two environments that have its views."""

    root: Path
    dev: Shops
    staging: Shops
    prod: Shops

    def run(self, *words: str, current: str = "dev") -> Result:
        """Call `ml-platform environments …` in one of them."""
        variables = {
            "ML_PLATFORM_PROJECT": str(self.root),
            "ML_PLATFORM_ENVIRONMENT": current,
            "ML_PLATFORM_HOME": None,
        }
        return CliRunner().invoke(app, ["environments", *words], env=variables)

    def promote(self, reference: str, to: str, *options: str, current: str = "dev") -> Result:
        """Promote for no particular reason."""
        return self.run("promote", reference, "--to", to, "--reason", "release 12", *options, current=current)

    def copied(self, folder: Path) -> "Environments":
        """A copy of it all that a test may change."""
        shutil.copytree(self.root, folder, dirs_exist_ok=True)
        return environments_in(folder, self.dev)


def environments_in(root: Path, world: Shops) -> Environments:
    return Environments(
        root,
        *(
            Shops(Settings(home=root / name), world.folder, world.spec, world.views)
            for name in ("dev", "staging", "prod")
        ),
    )


@pytest.fixture(scope="module")
def before(trained_shops: tuple[Shops, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """Before any promotion: version 1 serves in dev; version 2, which the gate refused, waits there. Read only."""
    world, trained = trained_shops
    root = tmp_path_factory.mktemp("environments").resolve()
    (root / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    (root / "environments.yaml").write_text(FILE.format(promoter=ME))
    shutil.copytree(world.settings.home, root / "dev")
    found = environments_in(root, world)
    evaluation = found.dev.evaluate(trained)
    version = register(found.dev.spec, trained, evaluation, tracker=found.dev.tracker)
    write_card(found.dev.spec, world.folder, trained, evaluation, version, tracker=found.dev.tracker)
    promote(found.dev.settings, found.dev.spec, version, evaluation, tracker=found.dev.tracker, by="ann")
    refused = {"bundle_digest": version.digest, "gate": "refused"}
    found.dev.tracker.client.create_model_version(version.model, version.model_uri, tags=refused)
    found.dev.store.register_version(version.model, 2, version.digest)
    for shops in (found.staging, found.prod):
        with SqliteOnlineStore(sqlite_file(shops.settings.online_uri)) as online:
            for view in world.views.values():
                publish_view(found.dev.lake, view, online)
    return found


@pytest.fixture(scope="module")
def promoted(before: Environments, tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """After the champion of dev was promoted to staging. Read only."""
    found = before.copied(tmp_path_factory.mktemp("promoted").resolve())
    done = found.promote("order_late@champion", "staging")
    assert done.exit_code == 0, done.output
    assert done.stdout == "order_late: version 1 of staging, which serves there (revision 1)\n"
    return found


@pytest.fixture
def own(before: Environments, tmp_path: Path) -> Environments:
    """A copy of the state before, to change."""
    return before.copied(tmp_path.resolve())


def files(folder: Path) -> set[str]:
    """All files below a folder but locks, which are always left."""
    return {str(path) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_promoted_model_serves_there_with_all_that_is_known_of_it(promoted: Environments) -> None:
    dev, staging = promoted.dev, promoted.staging
    [target] = dev.store.endpoints()["order_late"].targets
    document = staging.store.endpoint("order_late")
    assert document is not None
    assert document.targets == (target,)
    assert (document.updated_by, document.reason) == (ME, "from dev, version 1: release 12")
    assert staging.store.read_bundle(target.digest) == dev.store.read_bundle(target.digest)
    assert Scorer.load(staging.store.bundle_path(target.digest)).manifest.provenance.training_rows > 0
    client = staging.tracker.client
    there = client.get_model_version_by_alias("order_late", "champion")
    here = dev.tracker.client.get_model_version("order_late", "1")
    assert there.tags.items() >= here.tags.items()
    assert (there.tags["gate"], there.tags["promoted_from_environment"], there.tags["promoted_by"]) == (
        "passed",
        "dev",
        ME,
    )
    assert there.description.endswith(f"Promoted from dev, version 1, by {ME}.")
    assert client.get_run(there.run_id).info.status == "FINISHED"
    [entry] = read_releases(staging.lake, "order_late").rows(named=True)
    assert (entry["by"], entry["to_version"], entry["to_digest"]) == (ME, 1, target.digest)
    assert entry["reason"] == "from dev, version 1: release 12"
    audited = read_audit(staging.lake, staging.settings).filter(action="promotion")
    assert list(audited["name"]) == [ME]
    assert "from dev, version 1: release 12" in audited["detail"][0]
    assert verify_audit(staging.lake, staging.settings)[1] == []
    assert verify_ledger(staging.lake, staging.settings) == (2, [])
    assert load_card(staging.store, "order_late", 1) == load_card(dev.store, "order_late", 1)


def test_the_rows_that_it_learned_from_come_along_and_are_kept(promoted: Environments) -> None:
    dev, staging = promoted.dev, promoted.staging
    [target] = dev.store.endpoints()["order_late"].targets
    origin = origin_of(staging.store, target.digest)
    assert origin is not None
    assert (origin.environment, origin.version, origin.by) == ("dev", 1, ME)
    learned = dev.store.load_manifest(target.digest).provenance
    rows = dev.lake.read(learned.training_set, version=learned.training_set_version).collect()
    copied = staging.lake.read("promoted_training_sets/order_late", version=origin.training_set_version).collect()
    assert copied.sort("order_id").equals(rows.select(copied.columns).sort("order_id"))
    assert pinned_versions(staging.store) == {"promoted_training_sets/order_late": {0}}
    assert "promoted_training_sets/order_late" not in pinned_versions(dev.store)


def test_repeated_it_changes_nothing(promoted: Environments) -> None:
    earlier = files(promoted.staging.settings.releases_dir)
    again = promoted.promote("order_late@1", "staging")
    assert again.stdout == "order_late: version 1 of staging, which serves there (revision 1)\n"
    assert files(promoted.staging.settings.releases_dir) == earlier
    assert read_releases(promoted.staging.lake, "order_late").height == 1
    assert len(promoted.staging.tracker.client.search_model_versions("name = 'order_late'")) == 1
    assert promoted.staging.lake.version("promoted_training_sets/order_late") == 0


def test_it_goes_on_from_there_and_can_wait_for_its_release(promoted: Environments) -> None:
    done = promoted.promote("order_late", "prod", "--register-only", current="staging")
    assert done.stdout == (
        "order_late: version 1 of prod, which waits; to serve it, with ML_PLATFORM_ENVIRONMENT=prod:\n"
        '  ml-platform promote order_late 1 --reason "…"\n'
    )
    prod = promoted.prod
    assert prod.store.endpoint("order_late") is None
    assert (
        prod.tracker.client.get_model_version_by_alias("order_late", "challenger").tags["promoted_from_environment"]
        == "staging"
    )
    [digest] = prod.store.versions("order_late").values()
    origin = origin_of(prod.store, digest)
    assert origin is not None
    assert origin.environment == "staging"
    assert prod.lake.read("promoted_training_sets/order_late").collect().height > 0


def test_it_is_refused_where_it_may_not_be(own: Environments) -> None:
    untouched = files(own.root)
    (own.root / "environments.yaml").write_text(FILE.format(promoter="ada"))
    for words, message in {
        ("order_late@champion", "prod"): f"{ME} may not change what is served",
        ("order_late@champion", "produktion"): "unknown environment 'produktion'; did you mean 'prod'?",
        ("order_late@champion", "same"): "both environments have the release store",
        ("order_late@2", "staging"): "the gate's verdict is 'refused', wanted 'passed'",
        ("order_late@7", "staging"): "no version 7 is registered; there are [1, 2]",
        ("order_later", "staging"): "nothing serves, so there is no champion",
        ("order late", "staging"): "wanted a model and a version",
    }.items():
        refused = own.promote(*words)
        assert refused.exit_code == 1
        assert message in refused.output
    assert "a promotion wants a reason" in own.run("promote", "order_late", "--to", "staging", "--reason", " ").output
    assert files(own.root) == untouched


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tracking_uri: 'http://127.0.0.1:{port}'", "http://127.0.0.1:{port} does not answer"),
        (
            "tracking_uri: 'postgresql://127.0.0.1:{port}/mlflow'",
            "postgresql://127.0.0.1:{port}/mlflow does not answer",
        ),
        ("online_uri: 'redis://127.0.0.1:{port}'", "redis://127.0.0.1:{port} does not answer"),
        ("lake_uri: '{root}/environments.yaml/lake'", "environments.yaml is not a folder"),
    ],
)
def test_an_environment_that_cannot_be_reached_is_refused_at_once(
    own: Environments, setting: str, message: str
) -> None:
    values = {"port": free_port(), "root": own.root}
    text = FILE.format(promoter=ME).replace("{home: staging}", f"{{home: staging, {setting.format(**values)}}}")
    (own.root / "environments.yaml").write_text(text)
    untouched = files(own.root)
    refused = own.promote("order_late@champion", "staging")
    assert refused.exit_code == 1
    assert message.format(**values) in refused.output
    assert files(own.root) == untouched


def test_a_terminal_on_the_state_of_another_environment_is_refused(own: Environments) -> None:
    variables = {
        "ML_PLATFORM_PROJECT": str(own.root),
        "ML_PLATFORM_ENVIRONMENT": "staging",
        "ML_PLATFORM_HOME": str(own.dev.settings.home),
    }
    words = ["environments", "promote", "order_late", "--to", "prod", "--reason", "x"]
    refused = CliRunner().invoke(app, words, env=variables)
    assert refused.exit_code == 1
    assert f"has {own.staging.settings.home} for staging: unset ML_PLATFORM_HOME" in refused.output


def test_a_view_that_differs_there_is_refused(own: Environments) -> None:
    online = own.staging.settings.online_uri
    sqlite_file(online).unlink()
    refused = own.promote("order_late@champion", "staging")
    assert "looks up the view shop_load by its definition" in refused.output
    assert "the online store there has none of it" in refused.output
    view = own.dev.views["shop_load"]
    rows = own.dev.lake.read(view.table).select(*view.entity, view.event_time, *view.columns).head(3).collect()
    with SqliteOnlineStore(sqlite_file(online)) as store:
        store.write(view.name, view.entity, rows, view.event_time, view_hash="of another definition")
    refused = own.promote("order_late@champion", "staging")
    assert "the online store there has of another d; bring the same code there" in refused.output
    assert own.staging.store.endpoints() == {}


def test_another_contract_than_that_of_what_serves_there_is_refused(own: Environments) -> None:
    """Clients there send what the version that serves wants."""
    [digest] = set(own.dev.store.versions("order_late").values())
    bundle = own.dev.store.read_bundle(digest)
    manifest = own.dev.store.load_manifest(digest)
    first, *others = manifest.inputs
    other = msgspec.structs.replace(
        manifest, inputs=(msgspec.structs.replace(first, required=not first.required), *others)
    )
    other = msgspec.structs.replace(other, model_digest=model_digest(bundle["model.onnx"], other))
    assert contract_digest(other) != contract_digest(manifest)
    serving = own.staging.store.put_bundle({**bundle, "manifest.json": msgspec.json.encode(other)})
    own.staging.store.register_version("order_late", 1, serving)
    target = own.dev.store.endpoints()["order_late"].targets[0]
    own.staging.store.publish(
        "order_late", [msgspec.structs.replace(target, digest=serving)], reason="there before", by="eve"
    )
    refused = own.promote("order_late", "staging")
    assert "has another contract of inputs and answers" in refused.output
    assert "tell its clients, then promote it by --contract-changes" in refused.output
    assert set(own.staging.store.versions("order_late").values()) == {serving}


@pytest.mark.parametrize("file", ["model.onnx", "golden.json", "manifest.json"])
def test_a_bundle_that_was_altered_is_refused(own: Environments, file: str) -> None:
    [digest] = set(own.dev.store.versions("order_late").values())
    path = own.dev.store.bundle_path(digest) / file
    path.write_bytes(path.read_bytes() + b" ")
    refused = own.promote("order_late", "staging")
    assert "altered or damaged" in refused.output
    assert not (own.staging.settings.releases_dir / "bundles").exists()


def test_a_bundle_that_does_not_give_its_scores_is_refused(own: Environments) -> None:
    """Although its digests are right: its answers were recorded by another graph."""
    [digest] = set(own.dev.store.versions("order_late").values())
    bundle = own.dev.store.read_bundle(digest)
    golden = msgspec.json.decode(bundle["golden.json"])
    golden["scores"][0] += 0.25
    wrong = {**bundle, "golden.json": msgspec.json.encode(golden)}
    other = own.dev.store.put_bundle(wrong)
    assert other == bundle_digest(wrong)
    noted = own.dev.store.folder / "versions" / "order_late" / "1.json"
    noted.write_bytes(noted.read_bytes().replace(digest.encode(), other.encode()))
    own.dev.tracker.client.set_model_version_tag("order_late", "1", "bundle_digest", other)
    refused = own.promote("order_late@1", "staging")
    assert "golden row 0: wanted score" in refused.output
    assert not (own.staging.settings.releases_dir / "bundles").exists()


def test_registry_and_store_must_agree(own: Environments) -> None:
    own.dev.tracker.client.set_model_version_tag("order_late", "1", "bundle_digest", "0" * 64)
    assert "the registry names bundle 000000000000" in own.promote("order_late@1", "staging").output


def test_environments_are_listed(own: Environments) -> None:
    listed = own.run("list", current="staging").output.splitlines()
    assert listed[:2] == [
        f"  dev: {own.root}/dev; promoters: anybody who may write there",
        f"* staging: {own.root}/staging; promoters: anybody who may write there",
    ]
    (own.root / "environments.yaml").unlink()
    assert (
        "no environments.yaml"
        in CliRunner().invoke(app, ["environments", "list"], env={"ML_PLATFORM_PROJECT": str(own.root)}).output
    )


def test_references() -> None:
    assert parse_reference("order_late@12") == ("order_late", "12")
    for wrong in ("order_late@", "order_late@newest", "@champion", "Order@1"):
        with pytest.raises(ValueError, match="wanted a model and a version"):
            parse_reference(wrong)


# After which call the process is killed, as a power cut would.
KILLED_AFTER = {
    "the copy of the rows": ("ml_platform.lake.storage.tables", "Lake.replace"),
    "the logged model": ("ml_platform.promotion.across_environments", "log_model"),
    "the version in MLflow": ("mlflow.tracking", "MlflowClient.create_model_version"),
    "what serves": ("ml_platform.registry.releases", "ReleaseStore.publish"),
    "the ledger": ("ml_platform.promotion.promote", "record_release"),
}
KILLING = """
import importlib, os, signal, sys
from functools import wraps
module, _, path = sys.argv[1].partition(":")
*owners, name = path.split(".")
owner = importlib.import_module(module)
for one in owners:
    owner = getattr(owner, one)
inner = getattr(owner, name)
@wraps(inner)
def killed(*arguments, **options):
    inner(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, killed)
from ml_platform.cli import app
app(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", KILLED_AFTER)
def test_a_promotion_that_was_killed_is_finished_by_its_repetition(own: Environments, point: str) -> None:
    words = ["environments", "promote", "order_late", "--to", "staging", "--reason", "release 12"]
    variables = {"ML_PLATFORM_PROJECT": str(own.root), "ML_PLATFORM_ENVIRONMENT": "dev"}
    done = subprocess.run(
        [sys.executable, "-c", KILLING, ":".join(KILLED_AFTER[point]), *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    for document in own.staging.store.endpoints().values():  # what serves, if anything, is whole
        for target in document.targets:
            Scorer.load(own.staging.store.bundle_path(target.digest))
            assert own.staging.store.versions("order_late")[target.version] == target.digest
    finished = own.promote("order_late", "staging")
    assert finished.stdout == "order_late: version 1 of staging, which serves there (revision 1)\n"
    assert len(own.staging.tracker.client.search_model_versions("name = 'order_late'")) == 1
    assert own.staging.tracker.client.get_model_version_by_alias("order_late", "champion").tags["promoted_by"] == ME
    assert read_releases(own.staging.lake, "order_late").height == 1
    assert own.staging.tracker.close_dead_runs("order_late") == []
    assert not list((own.staging.settings.releases_dir / "bundles").glob(".staged-*"))


@pytest.mark.slow
def test_two_at_once_are_one(own: Environments) -> None:
    words = ["environments", "promote", "order_late", "--to", "staging", "--reason", "release 12"]
    variables = {"ML_PLATFORM_PROJECT": str(own.root), "ML_PLATFORM_ENVIRONMENT": "dev"}
    command = [sys.executable, "-m", "ml_platform", *words]
    both = [subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE) for _ in range(2)]
    ends: list[Callable[..., object]] = [process.communicate for process in both]
    for end in ends:
        end()
    assert 0 in [process.returncode for process in both]
    assert own.staging.store.revision("order_late") == 1
    assert list(own.staging.store.versions("order_late")) == [1]
    assert len(own.staging.tracker.client.search_model_versions("name = 'order_late'")) == 1
