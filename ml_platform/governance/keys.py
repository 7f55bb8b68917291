"""API keys: 256 random bits shown once, kept as an HMAC; each with roles, models and an expiry.

Serving imports this: standard library and msgspec only. The keys are in one small file, replaced whole and read again
when it changes; the secret of the HMAC is in another that only its owner may read, so that the first may be copied.
"""

import hmac
import re
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from ml_platform.atomic_files import FileStamp, file_stamp, locked, replace_file
from ml_platform.governance.audit import record_event
from ml_platform.secret_file import load_secret

ROLES = ("predict", "explain", "push", "promote", "admin")
_INCLUDES = {"admin": frozenset(ROLES), "explain": frozenset({"explain", "predict"})}
ALL_MODELS = "*"
RELOAD_SECONDS = 0.3
_TOKEN = re.compile(r"mlp_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_MOST_DAYS = 36_500
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._@-]{0,61}[A-Za-z0-9._@-])?")


class Key(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is kept of a key; times are ISO 8601 in UTC."""

    id: str
    name: str
    digest: str  # HMAC-SHA256 of the whole key
    roles: tuple[str, ...]
    models: tuple[str, ...]  # names, or "*"
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rate: float | None = None  # requests per second; the server's own limit when None
    burst: int | None = None  # requests at once within that rate

    def is_valid(self, now: datetime) -> bool:
        """Whether the key opens anything at an instant."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def has_role(self, role: str) -> bool:
        """Whether the key's roles include one: explain includes predict, admin includes all."""
        return includes_role(self.roles, role)

    def covers(self, model: str) -> bool:
        """Whether the key is for a model (or for all, when asked with "*")."""
        return ALL_MODELS in self.models or model in self.models

    def may(self, role: str, model: str) -> bool:
        """Whether the key has a role for a model."""
        return self.has_role(role) and self.covers(model)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Key] = []


class KeyStore:
    """The keys below a folder.

    Parameters
    ----------
    folder
        The platform's `keys_dir`.
    audit
        The platform's `audit_dir`, for who makes, rotates and revokes keys; None for who only reads them.
    by
        Who does; the user of this process when None.

    Examples
    --------
    >>> import tempfile
    >>> store = KeyStore(Path(tempfile.mkdtemp()))
    >>> key, token = store.create("nightly job", roles=["predict"], models=["flight_delay"])
    >>> store.find(token).name, store.find(token[:-1] + "?"), token in (store.folder / "keys.json").read_text()
    ('nightly job', None, False)
    """

    def __init__(self, folder: Path, audit: Path | None = None, *, by: str | None = None) -> None:
        self.folder = folder
        self._audit, self._by = audit, by
        self._path = folder / "keys.json"
        self._lock = threading.Lock()
        self._stamp: FileStamp | None = None
        self._looked = -1e9
        self._revision = 0
        self._keys: dict[str, Key] = {}
        self._secret = b""

    def create(
        self,
        name: str,
        *,
        roles: Sequence[str],
        models: Sequence[str] = (ALL_MODELS,),
        days: float | None = None,
        rate: float | None = None,
        burst: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key and give it with its text, which is kept nowhere.

        Raises
        ------
        ValueError
            For an unknown role, an empty scope, a name that is taken or not printable, no time to live, or a rate that
            lets nothing through.
        """
        if unknown := sorted(set(roles) - set(ROLES)) or not roles:
            raise ValueError(f"roles: wanted some of {', '.join(ROLES)}, found {unknown if roles else 'none'}")
        if not models:
            raise ValueError("models: wanted names, or '*' for all")
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                f"name: wanted 1 to 63 letters, digits, blanks or any of . _ @ -, no blank at an end, found {name!r}"
            )
        if days is not None and not 0 < days <= _MOST_DAYS:
            raise ValueError(f"days: wanted more than 0 and at most {_MOST_DAYS:,}, found {days:g}; none for no end")
        if (rate is not None and not 0 < rate < float("inf")) or (burst is not None and (burst < 1 or rate is None)):
            raise ValueError(
                f"rate and burst: wanted a rate above 0, and a burst of 1 or more with it, found {rate}, {burst}"
            )
        now = datetime.now(UTC)
        with locked(self.folder / "keys.lock"):
            file = self._read()
            if any(key.name == name and key.is_valid(now) for key in file.keys):
                raise ValueError(f"a valid key is called '{name}' already: rotate it, or choose another name")
            expires = None if days is None else now + timedelta(days=days)
            key = Key(
                id="", digest="", name=name, roles=tuple(roles), models=tuple(models), created_at=now,
                expires_at=expires, rate=rate, burst=burst,
            )  # fmt: skip
            key, token = self._sealed(key)
            self._note("key created", key)
            self._write([*file.keys, key])
        return key, token

    def rotate(self, key_id: str, *, grace: timedelta = timedelta(0)) -> tuple[Key, str]:
        """Make a new key with the name, roles, scope, rate and end of a valid one, which ends after `grace`.

        Raises
        ------
        LookupError
            When there is no such key, or it is no longer valid.
        """
        now = datetime.now(UTC)
        with locked(self.folder / "keys.lock"):
            file = self._read()
            old = self._get(file, key_id)
            if not old.is_valid(now):
                raise LookupError(f"key {key_id} ('{old.name}') is no longer valid: create a new one")
            key, token = self._sealed(msgspec.structs.replace(old, created_at=now))
            self._note("key rotated", key, f"; in place of {old.id}")
            end = min(now + grace, old.expires_at) if old.expires_at else now + grace
            self._write([*_replaced(file, msgspec.structs.replace(old, expires_at=end)), key])
        return key, token

    def revoke(self, key_id: str) -> Key:
        """End a key now and for good (raises LookupError)."""
        with locked(self.folder / "keys.lock"):
            file = self._read()
            old = self._get(file, key_id)
            self._note("key revoked", old)
            revoked = old if old.revoked_at else msgspec.structs.replace(old, revoked_at=datetime.now(UTC))
            self._write(_replaced(file, revoked))
        return revoked

    def keys(self) -> list[Key]:
        """Every key that ever was, oldest first."""
        return self._read().keys

    def in_use(self) -> bool:
        """Whether keys were ever made: from then on nothing is open without one, even when all have ended."""
        self._reload()
        return bool(self._keys)

    def revision(self) -> int:
        """Which contents of the file are in force, by a number: under the same one, a key that was found stands.

        Until it expires, that is. A change of the file counts within `RELOAD_SECONDS`.
        """
        self._reload()
        return self._revision

    def find(self, token: str) -> Key | None:
        """The valid key of a text; None for any other text. Takes the same time for a wrong secret as for a right one.

        A change of the file counts within `RELOAD_SECONDS`.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        self._reload()
        key = self._keys.get(match[1])
        digest = hmac.digest(self._secret, token.encode(), "sha256").hex()
        if not hmac.compare_digest(digest, key.digest if key else "") or key is None:
            return None
        return key if key.is_valid(datetime.now(UTC)) else None

    def _sealed(self, key: Key) -> tuple[Key, str]:
        """The key with an id of its own and the digest of its text, and the text."""
        key_id = secrets.token_hex(6)
        token = f"mlp_{key_id}_{secrets.token_urlsafe(32)}"
        digest = hmac.digest(self._load_secret(create=True), token.encode(), "sha256").hex()
        return msgspec.structs.replace(key, id=key_id, digest=digest), token

    def _get(self, file: _File, key_id: str) -> Key:
        for key in file.keys:
            if key.id == key_id:
                return key
        known = ", ".join(f"{key.id} ({key.name})" for key in file.keys) or "none yet"
        raise LookupError(f"there is no key {key_id}; there are: {known}")

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._looked < RELOAD_SECONDS:
            return
        with self._lock:
            self._looked = now
            try:
                stamp = file_stamp(self._path)
            except FileNotFoundError:
                return  # keys that were there before the file went stay in force
            if stamp != self._stamp:
                self._secret = self._load_secret(create=False)
                self._keys = {key.id: key for key in self._read().keys}
                self._stamp = stamp
                self._revision += 1

    def _read(self) -> _File:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return _File()
        except msgspec.MsgspecError as error:
            raise ValueError(f"{self._path}: not a file of keys ({error}); restore it from a backup") from error

    def _write(self, keys: list[Key]) -> None:
        replace_file(self._path, msgspec.json.format(msgspec.json.encode(_File(keys)), indent=2))

    def _load_secret(self, *, create: bool) -> bytes:
        return load_secret(self.folder / "keys.secret", create=create)

    def _note(self, action: str, key: Key, more: str = "") -> None:
        """Record it before it is done: nothing happens to a key that is not in the audit log."""
        if self._audit is not None:
            roles, models = ", ".join(key.roles), ", ".join(key.models)
            record_event(
                self._audit, self.folder, action, f"{key.id} '{key.name}': {roles}; models {models}{more}", by=self._by
            )


def includes_role(held: Iterable[str], role: str) -> bool:
    """Whether one of the roles held is, or includes, a role.

    Examples
    --------
    >>> includes_role(["explain"], "predict"), includes_role(["promote"], "predict")
    (True, False)
    """
    return any(role == one or role in _INCLUDES.get(one, ()) for one in held)


def _replaced(file: _File, changed: Key) -> list[Key]:
    return [changed if key.id == changed.id else key for key in file.keys]
