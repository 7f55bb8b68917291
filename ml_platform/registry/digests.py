"""Digests that name a bundle and a model: what is served can be checked byte by byte against what was promoted."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ml_platform.formats import MANIFEST
from ml_platform.registry.manifest import Input, Manifest, ViewLookup
from ml_platform.spec.input_rules import rule_values

BUNDLE_FILES = ("golden.json", "manifest.json", "model.onnx")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BundleRefused(RuntimeError):
    """A bundle that must not serve: damaged, altered, incomplete, or not reproducing its own golden answers."""


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hexadecimal, and therefore safe as a folder name."""
    return _DIGEST.fullmatch(text) is not None


def bundle_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names and contents of a bundle's files, whatever their order.

    Examples
    --------
    >>> bundle_digest({"a": b"1", "b": b"2"}) == bundle_digest({"b": b"2", "a": b"1"})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return digest.hexdigest()


def model_digest(onnx: bytes, manifest: Manifest) -> str:
    """SHA-256 over the ONNX graph and the signature: what decides an answer, and nothing else.

    Descriptions, metrics, provenance and times stay out, so equal training gives an equal digest whenever it ran.
    """
    signature: dict[str, Any] = {
        "model": manifest.model,
        "task": manifest.task,
        "target": manifest.target,
        "threshold": manifest.threshold,
        "classes": manifest.classes,
        "as_of": manifest.as_of,
        "inputs": [_input_signature(field) for field in manifest.inputs],
        "derived": [(feature.name, feature.type, feature.tree) for feature in manifest.derived],
        "lookups": [_lookup_signature(lookup) for lookup in manifest.lookups],
        "features": [(feature.name, feature.kind, feature.source, feature.categories) for feature in manifest.features],
    }
    digest = hashlib.sha256(hashlib.sha256(onnx).digest())
    digest.update(msgspec.json.encode(signature, order="deterministic"))
    return digest.hexdigest()


def contract_digest(manifest: Manifest) -> str:
    """SHA-256 over what a model's clients rely on: which inputs they send, by which rules, and what is answered."""
    contract = {
        "task": manifest.task,
        "classes": manifest.classes,
        "id": manifest.id,
        "inputs": sorted([_input_signature(field) for field in manifest.inputs], key=lambda signature: signature[0]),
    }
    return hashlib.sha256(msgspec.json.encode(contract, order="deterministic")).hexdigest()


def _input_signature(field: Input) -> tuple[Any, ...]:
    """The part of an input that decides an answer; what it does not declare leaves the digest as it was without it."""
    signature = (field.name, field.type, field.required, field.minimum, field.maximum)
    contract = (field.allowed, field.default, field.flagged)
    further = {
        key: value
        for key, value in rule_values(field).items()
        if value is not None and key not in ("minimum", "maximum", "allowed")
    }
    if further:
        return (*signature, *contract, further)
    return signature if contract == (None, None, ()) else (*signature, *contract)


class _LookupSignature(msgspec.Struct, frozen=True):
    """The part of a look-up that decides an answer, in the order of its first manifests."""

    view: str
    view_hash: str
    keys: dict[str, str]
    features: tuple[str, ...]
    ttl_seconds: float | None


def _lookup_signature(lookup: ViewLookup) -> _LookupSignature:
    return _LookupSignature(lookup.view, lookup.view_hash, lookup.keys, lookup.features, lookup.ttl_seconds)


class _Formatted(msgspec.Struct):
    format: int = 1


def manifest_format(content: bytes) -> int:
    """Return the format of a manifest, also of one that this engine does not read (raises msgspec.MsgspecError)."""
    return msgspec.json.decode(content, type=_Formatted).format


def check_bundle(files: Mapping[str, bytes], expected: str) -> Manifest:
    """Decode the manifest of a bundle after verifying that its digest is `expected`.

    Raises
    ------
    BundleRefused
        When a file is missing, a byte differs, or the manifest cannot be read or names another model digest.
    """
    if missing := [name for name in BUNDLE_FILES if name not in files]:
        raise BundleRefused(
            f"bundle {expected[:12]}: wanted the files {', '.join(BUNDLE_FILES)}, missing {', '.join(missing)}; "
            "publish the model again from its training run"
        )
    digest = bundle_digest({name: files[name] for name in BUNDLE_FILES})
    if digest != expected:
        raise BundleRefused(
            f"bundle {expected[:12]}: its files have the digest {digest[:12]}, so they were altered or damaged after "
            "publication; roll back, or publish the model again from its training run"
        )
    try:
        number = manifest_format(files["manifest.json"])
        if number not in MANIFEST.reads:
            readable = ", ".join(map(str, MANIFEST.reads))
            raise BundleRefused(
                f"bundle {expected[:12]}: its manifest has the format {number}, this engine reads {readable}; "
                f"{MANIFEST.migration}"
            )
        manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleRefused(
            f"bundle {expected[:12]}: its manifest cannot be read ({error}); train the model again"
        ) from error
    computed = model_digest(files["model.onnx"], manifest)
    if computed != manifest.model_digest:
        raise BundleRefused(
            f"bundle {expected[:12]}: the manifest names model digest {manifest.model_digest[:12]}, graph and "
            f"signature have {computed[:12]}; train the model again"
        )
    return manifest
