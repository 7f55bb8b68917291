import itertools
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from ml_platform.registry.canary import check_policy
from ml_platform.registry.digests import BundleRefused, bundle_digest
from ml_platform.registry.manifest import CanaryPolicy, Target, champion_target
from ml_platform.registry.releases import ReleaseConflict, ReleaseStore
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops


@pytest.fixture
def digest(trained_shops: tuple[Shops, TrainedModel]) -> str:
    return trained_shops[1].digest


def target(digest: str, version: int = 1, **changes) -> Target:
    return Target(version=version, digest=digest, **changes)


def test_first_release_then_second_keeps_previous_and_history(shops: Shops, digest: str) -> None:
    store = shops.store
    first = store.publish("order_late", [target(digest)], reason="first", by="ann", expected_revision=0)
    second = store.publish("order_late", [target(digest, 2)], reason="better", by="bob", expected_revision=1)
    assert (first.revision, second.revision) == (1, 2)
    assert first.previous == ()
    assert second.previous == first.targets
    assert store.endpoint("order_late") == second
    assert store.endpoints() == {"order_late": second}
    assert store.history("order_late") == [first, second]


def test_same_bundle_is_stored_once_from_folder_or_files(shops: Shops, digest: str, tmp_path) -> None:
    other = ReleaseStore(tmp_path / "elsewhere")
    assert other.put_bundle(shops.store.bundle_path(digest)) == digest
    assert other.put_bundle(shops.store.read_bundle(digest)) == digest
    assert [path.name for path in (tmp_path / "elsewhere" / "bundles").iterdir()] == [digest]
    assert other.load_manifest(digest).model == "order_late"


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "golden.json"])
def test_altered_file_is_refused_and_nothing_is_published(shops: Shops, digest: str, name: str) -> None:
    path = shops.store.bundle_path(digest) / name
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1) + b" ")
    with pytest.raises(BundleRefused, match="altered or damaged"):
        shops.store.publish("order_late", [target(digest)], reason="x", by="ann")
    assert shops.store.endpoint("order_late") is None


def test_missing_file_is_named(shops: Shops, digest: str) -> None:
    (shops.store.bundle_path(digest) / "golden.json").unlink()
    with pytest.raises(BundleRefused, match=r"missing golden\.json"):
        shops.store.load_manifest(digest)


def test_graph_that_is_not_the_manifests_is_refused(shops: Shops, digest: str) -> None:
    files = shops.store.read_bundle(digest)
    files["model.onnx"] += b"\x00"
    with pytest.raises(BundleRefused, match="model digest"):
        shops.store.put_bundle(files)
    assert not shops.store.bundle_path(bundle_digest(files)).exists()


def test_signature_that_was_changed_is_refused(shops: Shops, digest: str) -> None:
    files = shops.store.read_bundle(digest)
    manifest = msgspec.json.decode(files["manifest.json"])
    manifest["threshold"] = 0.99
    files["manifest.json"] = msgspec.json.encode(manifest)
    with pytest.raises(BundleRefused, match="model digest"):
        shops.store.put_bundle(files)


@pytest.mark.parametrize("name", ["../order_late", "order/late", "", "Order", "order_late.json", "a" * 64, "late\n"])
def test_model_name_cannot_leave_the_folder(shops: Shops, digest: str, name: str) -> None:
    for use in (shops.store.endpoint, shops.store.history, shops.store.endpoint_path):
        with pytest.raises(ValueError, match="model name"):
            use(name)
    with pytest.raises(ValueError, match="model name"):
        shops.store.publish(name, [target(digest)], reason="x", by="ann")


@pytest.mark.parametrize("name", ["../../etc", "abc", "", "g" * 64, "A" * 64])
def test_digest_cannot_leave_the_folder(shops: Shops, name: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal"):
        shops.store.bundle_path(name)


def test_unknown_bundle_and_foreign_model_are_refused(shops: Shops, digest: str) -> None:
    with pytest.raises(LookupError, match="no bundle ffffffffffff"):
        shops.store.publish("order_late", [target("f" * 64)], reason="x", by="ann")
    with pytest.raises(ValueError, match="which is a model 'order_late'"):
        shops.store.publish("other_model", [target(digest)], reason="x", by="ann")


def test_shares_must_add_up(shops: Shops, digest: str) -> None:
    split = [target(digest, 1, share=0.5), target(digest, 2, share=0.4)]
    with pytest.raises(ValueError, match="add up to 1"):
        shops.store.publish("order_late", split, reason="x", by="ann")
    with pytest.raises(ValueError, match="found: none"):
        shops.store.publish("order_late", [], reason="x", by="ann")
    shadowed = [target(digest, 1), target(digest, 2, share=0.0, mode="shadow")]
    assert champion_target(shops.store.publish("order_late", shadowed, reason="x", by="ann")).version == 1


def test_two_promoters_cannot_lose_an_update(shops: Shops, digest: str) -> None:
    """Eight promoters that all decided on revision 0: one wins, seven are told."""
    start = threading.Barrier(8)

    def promote(version: int) -> bool:
        start.wait()
        try:
            ReleaseStore(shops.store.folder).publish(
                "order_late", [target(digest, version)], reason="race", by=str(version), expected_revision=0
            )
        except ReleaseConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(promote, range(1, 9))) == 1
    assert [entry.revision for entry in shops.store.history("order_late")] == [1]


def test_unconditional_publications_never_share_a_revision(shops: Shops, digest: str) -> None:
    def publish(version: int) -> int:
        return shops.store.publish("order_late", [target(digest, version)], reason="x", by="ann").revision

    with ThreadPoolExecutor(6) as pool:
        revisions = list(pool.map(publish, range(1, 13)))
    assert sorted(revisions) == list(range(1, 13))
    history = shops.store.history("order_late")
    assert [entry.revision for entry in history] == list(range(1, 13))
    assert all(later.previous == earlier.targets for earlier, later in itertools.pairwise(history))


def test_reader_sees_whole_documents_only(shops: Shops, digest: str) -> None:
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            document = shops.store.endpoint("order_late")  # raises on a torn document
            seen.append(document.revision if document else 0)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for version in itertools.count(1):  # until both have had their turns, however they are scheduled
                shops.store.publish("order_late", [target(digest, version)], reason="x", by="ann")
                if reader.done() or (version >= 29 and len(seen) > 29):
                    break
        finally:
            done.set()
        reader.result()
    assert seen == sorted(seen)


def test_history_leaves_out_what_never_became_current(shops: Shops, digest: str) -> None:
    """A crash between history and endpoint leaves a document that the next publication overwrites."""
    store = shops.store
    store.publish("order_late", [target(digest)], reason="first", by="ann")
    folder = store.folder / "history" / "order_late"
    shutil.copy(folder / "00000001.json", folder / "00000002.json")
    orphan = (folder / "00000002.json").read_text().replace('"revision": 1', '"revision": 2')
    (folder / "00000002.json").write_text(orphan.replace("first", "never happened"))
    assert [entry.reason for entry in store.history("order_late")] == ["first"]
    store.publish("order_late", [target(digest)], reason="second", by="ann")
    assert [entry.reason for entry in store.history("order_late")] == ["first", "second"]


def test_unreadable_endpoint_document_names_the_file(shops: Shops) -> None:
    path = shops.store.endpoint_path("order_late")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"order_late\.json: not an endpoint document"):
        shops.store.endpoint("order_late")


def test_a_document_that_could_not_be_read_again_is_not_stored(shops: Shops, digest: str) -> None:
    first = shops.store.publish("order_late", [target(digest)], reason="first", by="ann")
    with pytest.raises(ValueError, match="could not be read again"):
        shops.store.publish("order_late", [target(digest, share=math.nan)], reason="x", by="ann", action="withdrawal")
    with pytest.raises(ValueError, match=r"reason: wanted text, found the control character U\+0000"):
        shops.store.publish("order_late", [target(digest)], reason="nul \x00", by="ann")
    assert shops.store.history("order_late") == [first]


def test_one_damaged_document_hides_no_other(shops: Shops, digest: str) -> None:
    first = shops.store.publish("order_late", [target(digest)], reason="first", by="ann")
    shops.store.endpoint_path("damaged").write_bytes(b"{")
    readable, unreadable = shops.store.readable_documents()
    assert readable == {"order_late": first}
    assert "not an endpoint document" in str(unreadable["damaged"])


@pytest.mark.parametrize("bound", ["minutes", "max_wait_hours", "max_latency_ratio"])
def test_a_canary_has_no_infinite_bound(bound: str) -> None:
    with pytest.raises(ValueError, match=f"{bound}: inf is out of its range"):
        check_policy(msgspec.structs.replace(CanaryPolicy(steps=(20, 100)), **{bound: math.inf}))
