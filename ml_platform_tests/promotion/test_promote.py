import shutil
from contextlib import suppress

import polars as pl
import pytest
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance.audit_table import read_audit
from ml_platform.governance.ledger_check import ANCHORED
from ml_platform.promotion.promote import RegistryBehind, promote, promote_version, rollback, sync_registry
from ml_platform.promotion.versions import register
from ml_platform.registry.ledger import read_releases
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseConflict, VersionTaken
from ml_platform.training.documents import Evaluation, RegisteredVersion, TrainedModel
from ml_platform_tests.toy_world import Shops


@pytest.fixture
def trained(trained_shops: tuple[Shops, TrainedModel]) -> TrainedModel:
    return trained_shops[1]


def aliased(shops: Shops, alias: str) -> int:
    return int(shops.tracker.client.get_model_version_by_alias("order_late", alias).version)


def judged(shops: Shops, trained: TrainedModel, promote: bool = True) -> Evaluation:
    found = shops.evaluate(trained)
    return found.model_copy(update={"promote": promote, "reasons": ("because",)})


def registered_again(shops: Shops, version: RegisteredVersion) -> RegisteredVersion:
    """Another version of the same bundle, as a second model would be."""
    client = shops.tracker.client
    created = client.create_model_version(
        version.model, version.model_uri, tags={"bundle_digest": version.digest, "stage": "Staging"}
    )
    return version.model_copy(update={"version": int(created.version)})


def test_first_promotion_serves_and_is_told_everywhere(shops: Shops, trained: TrainedModel) -> None:
    evaluation = shops.evaluate(trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    decision = promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    assert decision.promoted
    assert (decision.version, decision.previous_version, decision.revision) == (1, None, 1)
    endpoint = shops.store.endpoint("order_late")
    assert endpoint is not None
    assert endpoint.targets == (Target(version=1, digest=trained.digest),)
    assert aliased(shops, "champion") == 1
    assert shops.tracker.client.get_model_version("order_late", "1").tags["stage"] == "Production"
    with pytest.raises(MlflowException, match="challenger"):
        aliased(shops, "challenger")
    entry = read_releases(shops.lake, "order_late").row(0, named=True)
    assert (entry["action"], entry["by"], entry["revision"]) == ("promotion", "ann", 1)
    assert (entry["from_version"], entry["to_version"], entry["to_digest"]) == (None, 1, trained.digest)
    assert "roc_auc" in entry["reason"]


def test_registered_version_is_described_tagged_and_signed(shops: Shops, trained: TrainedModel) -> None:
    evaluation = shops.evaluate(trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    assert register(shops.spec, trained, evaluation, tracker=shops.tracker) == version
    client = shops.tracker.client
    stored = client.get_model_version("order_late", "1")
    assert aliased(shops, "challenger") == 1
    assert stored.tags["stage"] == "Staging"
    assert stored.tags["gate"] == "passed"
    assert stored.tags["bundle_digest"] == trained.digest
    assert float(stored.tags["holdout_roc_auc"]) == pytest.approx(trained.metrics["roc_auc"], rel=1e-4)
    for said in (f"{trained.trained.rows:,} rows", "raw/orders (version 0)", "naive baseline", "shop_load__load"):
        assert said in stored.description
    import mlflow

    signature = mlflow.models.get_model_info(version.model_uri).signature
    assert signature.inputs.input_names() == ["X"]
    assert signature.outputs.input_names() == ["score"]


def test_refused_challenger_stays_out(shops: Shops, trained: TrainedModel) -> None:
    evaluation = judged(shops, trained, promote=False)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    decision = promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    assert not decision.promoted
    assert decision.reasons == ("because",)
    assert shops.store.endpoint("order_late") is None
    assert read_releases(shops.lake).is_empty()


def test_person_promotes_what_waits(shops: Shops, trained: TrainedModel) -> None:
    waiting = shops.spec.model_copy(update={"promotion": shops.spec.promotion.model_copy(update={"automatic": False})})
    evaluation = judged(shops, trained)
    version = register(waiting, trained, evaluation, tracker=shops.tracker)
    decision = promote(shops.settings, waiting, version, evaluation, tracker=shops.tracker, by="dagster")
    assert not decision.promoted
    assert "waits as challenger" in decision.reasons[0]
    with pytest.raises(LookupError, match=r"no version 9 is registered; there are \[1\]"):
        promote_version(shops.settings, "order_late", 9, by="ann", reason="looks good")
    endpoint = promote_version(shops.settings, "order_late", 1, by="ann", reason="looks good")
    assert endpoint.targets[0].version == 1
    assert read_releases(shops.lake).row(0, named=True)["reason"] == "looks good"


def test_repeated_promotion_changes_nothing(shops: Shops, trained: TrainedModel) -> None:
    evaluation = judged(shops, trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    again = promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    assert again.promoted  # a retry of a promotion that was cut short: no refusal for the retraining to back off from
    assert again.reasons == ("Version 1 already serves (revision 1).", *evaluation.reasons)
    assert (again.previous_version, again.revision) == (None, 1)
    assert read_releases(shops.lake).height == 1
    promote_version(shops.settings, "order_late", 1, by="ann", reason="once more, with another reason")
    document = shops.store.document("order_late")
    assert document is not None
    assert document.revision == 2
    later = promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    assert not later.promoted
    assert later.reasons == ("Version 1 already serves (revision 2).",)


def test_evaluation_against_a_champion_that_is_gone_is_refused(shops: Shops, trained: TrainedModel) -> None:
    evaluation = judged(shops, trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    other = annotated_copy(shops, trained)
    shops.store.publish("order_late", [Target(version=7, digest=other)], reason="meanwhile", by="bob")
    with pytest.raises(ReleaseConflict, match="revision 0, but revision 1 is current"):
        promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")


def annotated_copy(shops: Shops, trained: TrainedModel) -> str:
    """Another bundle of the same model: an annotation differs, its answers do not."""
    files = shops.store.read_bundle(trained.digest)
    files["manifest.json"] = files["manifest.json"].replace(b"shops@example.com", b"other@example.com")
    return shops.store.put_bundle(files)


def test_rollback_swaps_moves_aliases_and_is_written_down(shops: Shops, trained: TrainedModel) -> None:
    evaluation = judged(shops, trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    with pytest.raises(LookupError, match="is all that ever served"):
        rollback(shops.settings, "order_late", by="bob", reason="worse")
    registered_again(shops, version)
    promote_version(shops.settings, "order_late", 2, by="ann", reason="newer")
    client = shops.tracker.client
    assert aliased(shops, "champion") == 2
    assert client.get_model_version("order_late", "1").tags["stage"] == "Archived"

    back = rollback(shops.settings, "order_late", by="bob", reason="complaints")
    assert (back.revision, back.targets[0].version, back.previous[0].version) == (3, 1, 2)
    assert aliased(shops, "champion") == 1
    stages = {number: client.get_model_version("order_late", number).tags["stage"] for number in ("1", "2")}
    assert stages == {"1": "Production", "2": "Archived"}
    ledger = read_releases(shops.lake, "order_late")
    assert ledger["action"].to_list() == ["promotion", "promotion", "rollback"]
    last = ledger.row(-1, named=True)
    assert (last["by"], last["reason"], last["from_version"], last["to_version"]) == ("bob", "complaints", 2, 1)
    assert rollback(shops.settings, "order_late", by="bob", reason="undo").targets[0].version == 2
    audited = read_audit(shops.lake, shops.settings).filter(~pl.col("action").is_in(["opened", ANCHORED]))
    changes = [("promotion", "ann"), ("promotion", "ann"), ("rollback", "bob"), ("rollback", "bob")]
    assert audited.select("action", "name").rows() == changes
    assert audited["detail"].to_list()[2] == "order_late: version 1 (live 100%), revision 3: complaints"


def test_nothing_to_roll_back(shops: Shops) -> None:
    with pytest.raises(LookupError, match="nothing serves"):
        rollback(shops.settings, "order_late", by="bob", reason="worse")


def test_registry_outage_leaves_the_release_and_can_be_made_up(shops: Shops, trained: TrainedModel) -> None:
    evaluation = judged(shops, trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    shops.tracker.client.rename_registered_model("order_late", "hidden")
    with pytest.raises(RegistryBehind, match="version 1 serves"):
        promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    assert shops.store.endpoint("order_late") is not None
    shops.tracker.client.rename_registered_model("hidden", "order_late")
    sync_registry(shops.settings, "order_late")
    assert aliased(shops, "champion") == 1
    assert read_releases(shops.lake)["action"].to_list() == ["promotion"]


def test_versions_that_cannot_serve_are_refused_with_what_to_do(
    shops: Shops, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown, of somebody else, or without its bundle: each has its answer, at once, and changes nothing."""
    first = register(shops.spec, trained, judged(shops, trained), tracker=shops.tracker)
    promote_version(shops.settings, "order_late", 1, by="ann", reason="first")
    shops.tracker.client.create_model_version("order_late", first.model_uri)  # by MLflow's UI, say
    files = shops.store.read_bundle(trained.digest)
    files["manifest.json"] = files["manifest.json"].replace(b"shops@example.com", b"other@example.com")
    gone = shops.store.put_bundle(files)
    shops.tracker.client.create_model_version("order_late", first.model_uri, tags={"bundle_digest": gone})
    shutil.rmtree(shops.store.bundle_path(gone))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))
    for version, words in {
        9: "order_late: no version 9 is registered; there are [1, 2, 3]",
        2: "order_late: version 2 has no bundle (no tag bundle_digest in MLflow): it was not registered by this",
        3: f"no bundle {gone[:12]} in",
    }.items():
        with pytest.raises(LookupError) as refused:
            promote_version(shops.settings, "order_late", version, by="ann", reason="mine")
        assert words in str(refused.value)
        done = CliRunner().invoke(app, ["promote", "order_late", str(version), "--reason", "mine"])
        assert (done.exit_code, words in done.output) == (1, True), done.output
    document = shops.store.document("order_late")
    assert document is not None
    assert ([target.version for target in document.targets], document.revision) == ([1], 1)


def test_a_registry_that_was_lost_gives_no_number_again(shops: Shops, trained: TrainedModel) -> None:
    for number in (1, 2):
        shops.store.register_version("order_late", number, f"{number}" * 64)  # of a registry that is gone
    version = register(shops.spec, trained, shops.evaluate(trained), tracker=shops.tracker)
    assert version.version == 3
    assert shops.store.versions("order_late") == {1: "1" * 64, 2: "2" * 64, 3: trained.digest}
    assert [int(entry.version) for entry in shops.tracker.client.search_model_versions("name = 'order_late'")] == [3]
    with pytest.raises(VersionTaken, match="order_late: version 1 is the bundle 111111111111 here, and cccccccccccc"):
        shops.store.register_version("order_late", 1, "c" * 64)
    assert shops.store.versions("order_late")[1] == "1" * 64


def test_what_the_release_store_knows_is_promoted_while_the_registry_knows_nothing(
    shops: Shops, trained: TrainedModel
) -> None:
    register(shops.spec, trained, shops.evaluate(trained), tracker=shops.tracker)
    shops.tracker.client.delete_registered_model("order_late")
    with suppress(RegistryBehind):  # aliases cannot follow
        promote_version(shops.settings, "order_late", 1, by="ann", reason="now")
    document = shops.store.endpoint("order_late")
    assert document is not None
    assert document.champion == Target(version=1, digest=trained.digest)
