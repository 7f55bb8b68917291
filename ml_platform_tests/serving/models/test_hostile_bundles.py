"""Whoever can write to the release store, and to nothing else, cannot make a server run code or read other files."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import onnx
import pytest
from onnx import TensorProto, helper

from ml_platform.registry.digests import BUNDLE_FILES, bundle_digest, model_digest
from ml_platform.registry.manifest import Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW, announce, bundle, fill_online_store, publish

PATH = f"/predict/{MODEL}"
Serve = Callable[..., Server]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def wait_for_refusal(server: Server, revision: int) -> str:
    """The reason for which a revision is refused."""

    def refusal(client: httpx.Client) -> dict[str, Any]:
        return client.get(f"/models/{MODEL}").json()["refused"] or {"revision": 0}

    server.wait_until(lambda client: refusal(client)["revision"] == revision)
    return str(refusal(server.client)["reason"])


def is_refused(server: Server, revision: int = 2) -> str:
    """The new release is refused, and what served before serves on."""
    reason = wait_for_refusal(server, revision)
    answer = server.client.post(PATH, json=ROW)
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    return reason


@pytest.fixture
def server(settings: Settings, serve: Serve) -> Server:
    fill_online_store(settings)
    publish(settings, 1)
    return serve(settings)


def test_a_pickle_beside_or_in_place_of_a_file_is_never_loaded(
    settings: Settings, server: Server, tmp_path: Path
) -> None:
    marker = tmp_path / "it ran"
    hostile = pickle.dumps(Payload(marker))
    pickle.loads(hostile)  # it is what it says it is
    marker.rmdir()
    store = ReleaseStore(settings.releases_dir)
    digest = store.put_bundle({**bundle(2), "model.pkl": hostile})
    (store.bundle_path(digest) / "model.pkl").write_bytes(hostile)
    store.publish(MODEL, [Target(version=2, digest=digest)], reason="test", by="test")
    server.wait_until(lambda client: client.post(PATH, json=ROW).json()["version"] == 2)
    for name in BUNDLE_FILES:
        files = {**bundle(3), name: hostile}
        digest = bundle_digest(files)
        folder = store.bundle_path(digest)
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        announce(settings, digest, revision=3 + BUNDLE_FILES.index(name))
        wait_for_refusal(server, 3 + BUNDLE_FILES.index(name))
        assert server.client.post(PATH, json=ROW).json()["version"] == 2
    assert not marker.exists()


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_a_link_to_another_file_is_refused_and_tells_nothing_of_it(
    settings: Settings, server: Server, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text('{"secret-value": 1}')
    store = ReleaseStore(settings.releases_dir)
    digest = store.put_bundle(bundle(2))
    (store.bundle_path(digest) / name).unlink()
    (store.bundle_path(digest) / name).symlink_to(tmp_path / "secret")
    announce(settings, digest)
    assert "secret-value" not in is_refused(server)


def test_a_digest_that_is_a_path_or_url_is_refused(settings: Settings, server: Server) -> None:
    for revision, digest in enumerate(("../../keys", "file:///etc/passwd", "..", "/etc", "A" * 64, ""), start=2):
        announce(settings, digest, revision)
        assert "64 hexadecimal digits" in is_refused(server, revision)


def test_an_endpoint_document_for_another_name_or_place_serves_nothing(settings: Settings, server: Server) -> None:
    folder = ReleaseStore(settings.releases_dir).folder / "endpoints"
    content = (folder / f"{MODEL}.json").read_bytes()
    for name in ("..", "Upper", "a b", "evil;x", "x" * 100):
        (folder / f"{name}.json").write_bytes(content)
    (folder / "linked.json").symlink_to("/etc/passwd")
    server.wait_until(lambda client: len(client.get("/models").json()["models"]) == 7)
    assert "root:" not in server.client.get("/models").text
    assert server.client.post(PATH, json=ROW).status_code == 200


@pytest.mark.parametrize("where", ["elsewhere", "in the working directory"])
def test_a_graph_that_reads_its_weights_from_another_file_is_refused(
    settings: Settings, server: Server, tmp_path: Path, where: str
) -> None:
    secret = tmp_path / "weights" if where == "elsewhere" else Path("pyproject.toml").resolve()
    if where == "elsewhere":
        secret.write_bytes(bytes(4096))
    graph = onnx.load_from_string(bundle(2)["model.onnx"])
    outside = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[64])
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", os.path.relpath(secret)), ("offset", "0"), ("length", "256")):
        outside.external_data.add(key=key, value=value)
    graph.graph.initializer.append(outside)
    graph.graph.node.append(helper.make_node("Identity", ["outside"], ["leaked"]))
    files = bundle(2)
    content = graph.SerializeToString()
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(content, manifest))
    files |= {"model.onnx": content, "manifest.json": msgspec.json.encode(manifest)}
    announce(settings, ReleaseStore(settings.releases_dir).put_bundle(files))
    assert "External data" in is_refused(server)
