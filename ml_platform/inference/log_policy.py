"""What of its answers a model lets into the inference log: which requests, and which values of them.

A request is logged or not by a hash of its id, so that every worker and every shadow decides alike, and each logged row
says for how many it stands. Redacted inputs are taken out before anything is written, and with them every feature that
is computed from them; hashed ones become an HMAC, by which they can still be grouped and counted but not read.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from ml_platform.governance.secret import load_secret
from ml_platform.inference.contract import Violation
from ml_platform.inference.log import Batch, Record
from ml_platform.registry.manifest import Manifest

SECRET = "inference_log.secret"


class LogPolicyFilter:
    """Applies one model's policy to what would be logged of a request.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from ml_platform.registry.manifest import InferenceLogPolicy
    >>> manifest = SimpleNamespace(inference_log=InferenceLogPolicy(sample=0.1), features=(), derived=())
    >>> found = LogPolicyFilter.of(manifest, Path("keys"))
    >>> sum(found.keeps(f"request-{number}") for number in range(10_000)), found.weight
    (987, 10.0)
    """

    def __init__(self, manifest: Manifest, secret: bytes) -> None:
        policy = manifest.inference_log
        self.weight = 1 / policy.sample
        self._limit = round(policy.sample * 2**64)
        self._secret = secret
        self._hashed = frozenset(policy.hash)
        self._withheld = withheld(manifest)
        self._removed = frozenset(policy.redact)
        self._positions = [
            place
            for place, feature in enumerate(manifest.features)
            if feature.name in self._withheld or feature.name in self._hashed
        ]
        self._hides = bool(self._removed or self._hashed)

    @classmethod
    def of(cls, manifest: Manifest, keys_dir: Path) -> Self | None:
        """Give the filter of a model; None when all of every request is logged.

        Raises
        ------
        OSError
            When values are to be hashed, and the secret below `keys_dir` can neither be read nor made.
        """
        policy = manifest.inference_log
        if policy.sample == 1 and not policy.redact and not policy.hash:
            return None
        return cls(manifest, load_secret(keys_dir / SECRET, create=True) if policy.hash else b"")

    def keeps(self, request_id: str) -> bool:
        """Whether a request is logged. Not the hash that shares traffic among versions: all of them are sampled."""
        drawn = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "big") < self._limit

    def apply(self, records: Sequence[Record | Batch], request_id: str) -> Sequence[Record | Batch]:
        """What is to be written of a request's records; nothing when the request is not sampled."""
        if self.weight > 1 and not self.keeps(request_id):
            return ()
        for record in records:
            record.sample_weight = self.weight
            if self._hides:
                self._hide(record)
                record.flags = [self._flag(flag) for flag in record.flags]
        return records

    def _hide(self, record: Record | Batch) -> None:
        if isinstance(record, Record):
            record.inputs = self._inputs(msgspec.json.decode(msgspec.json.encode(record.inputs)))
            record.features = {name: self._feature(name, value) for name, value in record.features.items()}
        else:
            rows = msgspec.json.decode(record.inputs)["rows"]
            record.inputs = msgspec.Raw(msgspec.json.encode({"rows": [self._inputs(row) for row in rows]}))
            matrix = np.frombuffer(record.matrix, dtype="<f8").reshape(record.batch, len(record.columns)).copy()
            matrix[:, self._positions] = np.nan
            record.matrix = matrix.tobytes()
            record.categories = {
                name: [self._feature(name, value) for value in values] for name, values in record.categories.items()
            }

    def _inputs(self, row: dict[str, Any]) -> dict[str, Any]:
        return {
            name: self._hash(value) if name in self._hashed else value
            for name, value in row.items()
            if name not in self._removed
        }

    def _flag(self, flag: Violation) -> Violation:
        """A flag without the value that was found."""
        hidden = flag.field in self._removed or flag.field in self._hashed
        return msgspec.structs.replace(flag, message="not logged") if hidden else flag

    def _feature(self, name: str, value: Any) -> Any:
        if name in self._withheld:
            return None
        if name in self._hashed:
            return self._hash(value) if isinstance(value, str) else None  # a number's column holds numbers
        return value

    def _hash(self, value: Any) -> str | None:
        return None if value is None else hmac.digest(self._secret, str(value).encode(), "sha256")[:16].hex()


def withheld(manifest: Manifest) -> frozenset[str]:
    """What never reaches the log: redacted inputs, and features computed from these or from hashed ones."""
    policy = manifest.inference_log
    return frozenset({*policy.redact, *_computed_from({*policy.redact, *policy.hash}, manifest)})


def unwatched(manifest: Manifest) -> frozenset[str]:
    """Features whose logged values are not those that the model saw."""
    return withheld(manifest) | frozenset(manifest.inference_log.hash)


def not_reproducible(manifest: Manifest) -> frozenset[str]:
    """Features that cannot be computed again from the log: those not logged, and look-ups by inputs not logged."""
    hidden = unwatched(manifest)
    looked_up = [lookup.features for lookup in manifest.lookups if hidden & set(lookup.keys.values())]
    return hidden.union(*looked_up)


def _computed_from(names: set[str], manifest: Manifest) -> set[str]:
    found: set[str] = set()
    for feature in manifest.derived:  # each may use those before it
        if (names | found) & set(_columns(feature.tree)):
            found.add(feature.name)
    return found


def _columns(tree: Any) -> Iterator[str]:
    """Columns that a portable expression reads."""
    if isinstance(tree, dict):
        if tree.get("op") == "column":
            yield tree["name"]
        for value in tree.values():
            yield from _columns(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _columns(value)
