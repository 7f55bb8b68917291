"""A model's policy for its inference log: which requests are logged, and which of their values.

Whether a request is logged depends on a hash of its id, so every worker and every shadow version decides the same; each
logged row says how many rows it represents. Redacted inputs are removed before anything is written, and so is every
feature computed from them. Hashed inputs become an HMAC, by which they can be grouped and counted but not read.
"""

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from ml_platform.features.expressions.compile import columns_of
from ml_platform.inference.log import Batch, Record
from ml_platform.registry.input_contract import Violation
from ml_platform.registry.manifest import Manifest
from ml_platform.secret_file import load_secret

SECRET = "inference_log.secret"


class LogPolicyFilter:
    """Applies a model's policy to the records of a request.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from ml_platform.registry.manifest import InferenceLogPolicy
    >>> manifest = SimpleNamespace(inference_log=InferenceLogPolicy(sample=0.1), features=(), derived=())
    >>> found = LogPolicyFilter.of(manifest, Path("keys"))
    >>> sum(found.is_sampled(f"request-{number}") for number in range(10_000)), found.weight
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
        """Make the filter of a model; None when every request is logged in full.

        Raises
        ------
        OSError
            When values are to be hashed, and the secret in `keys_dir` can neither be read nor created.
        """
        policy = manifest.inference_log
        if policy.sample == 1 and not policy.redact and not policy.hash:
            return None
        return cls(manifest, load_secret(keys_dir / SECRET, create=True) if policy.hash else b"")

    def is_sampled(self, request_id: str) -> bool:
        """Whether a request is logged, by another hash than that of the traffic split, so as to sample all versions."""
        drawn = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "big") < self._limit

    def apply(self, records: Sequence[Record | Batch], request_id: str) -> Sequence[Record | Batch]:
        """Change a request's records to what may be logged; none when the request is not sampled."""
        if self.weight > 1 and not self.is_sampled(request_id):
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
        """Hide the value in the message of a redacted or hashed input's flag."""
        hidden = flag.field in self._removed or flag.field in self._hashed
        return msgspec.structs.replace(flag, message="not logged") if hidden else flag

    def _feature(self, name: str, value: Any) -> Any:
        if name in self._withheld:
            return None
        if name in self._hashed:
            return self._hash(value) if isinstance(value, str) else None  # a numeric column cannot hold a hash
        return value

    def _hash(self, value: Any) -> str | None:
        return None if value is None else hmac.digest(self._secret, str(value).encode(), "sha256")[:16].hex()


def withheld(manifest: Manifest) -> frozenset[str]:
    """Names that are never logged: redacted inputs, and features computed from redacted or hashed inputs."""
    policy = manifest.inference_log
    return frozenset({*policy.redact, *_computed_from({*policy.redact, *policy.hash}, manifest)})


def unwatched(manifest: Manifest) -> frozenset[str]:
    """Names whose logged values are not those that the model saw."""
    return withheld(manifest) | frozenset(manifest.inference_log.hash)


def not_reproducible(manifest: Manifest) -> frozenset[str]:
    """Features that cannot be computed again from the log: those not logged, and look-ups with keys not logged."""
    hidden = unwatched(manifest)
    looked_up = [lookup.features for lookup in manifest.lookups if hidden & set(lookup.keys.values())]
    return hidden.union(*looked_up)


def _computed_from(names: set[str], manifest: Manifest) -> set[str]:
    computed: set[str] = set()
    for feature in manifest.derived:  # each may use those before it
        if (names | computed) & columns_of(feature.tree):
            computed.add(feature.name)
    return computed
