"""A model's digest says what decides its answers, and stays what it was when the manifest learns new words."""

import hashlib

import msgspec

from ml_platform.registry.digests import bundle_digest, check_bundle, model_digest
from ml_platform.registry.manifest import Manifest
from ml_platform_tests.serving.releases import bundle


class EarlierLookup(msgspec.Struct):
    """A look-up as the first manifests had it."""

    view: str
    view_hash: str
    keys: dict[str, str]
    features: tuple[str, ...]
    ttl_seconds: float | None


def manifest() -> Manifest:
    return msgspec.json.decode(bundle(1)["manifest.json"], type=Manifest)


def test_a_bundle_from_before_contracts_still_loads() -> None:
    files = bundle(1)
    document = msgspec.json.decode(files["manifest.json"])
    for field in document["inputs"]:
        for name in ("allowed", "default", "flagged", "pattern"):
            field.pop(name, None)
    signature = {name: document[name] for name in ("model", "task", "target", "threshold", "classes", "as_of")}
    signature["lookups"] = msgspec.convert(document["lookups"], list[EarlierLookup])
    signature["inputs"] = [
        [field[name] for name in ("name", "type", "required", "minimum", "maximum")] for field in document["inputs"]
    ]
    signature["derived"] = [[one["name"], one["type"], one["tree"]] for one in document["derived"]]
    signature["features"] = [
        [one["name"], one["kind"], one["source"], one["categories"]] for one in document["features"]
    ]
    digest = hashlib.sha256(hashlib.sha256(files["model.onnx"]).digest())
    digest.update(msgspec.json.encode(signature, order="deterministic"))
    assert document["model_digest"] == digest.hexdigest()
    files["manifest.json"] = msgspec.json.encode(document)
    assert check_bundle(files, bundle_digest(files)) == manifest()


def test_a_contract_is_part_of_the_digest() -> None:
    plain, onnx = manifest(), bundle(1)["model.onnx"]
    digests = {plain.model_digest}
    for change in (
        {"allowed": ("AA",)},
        {"allowed": ("AA",), "flagged": ("allowed",)},
        {"default": "AA"},
        {"pattern": "AA"},
    ):
        inputs = [msgspec.structs.replace(one, **change) if one.name == "carrier" else one for one in plain.inputs]
        digests.add(model_digest(onnx, msgspec.structs.replace(plain, inputs=tuple(inputs))))
    assert len(digests) == 5
