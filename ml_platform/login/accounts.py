"""Local accounts: one small file below the home, replaced whole under a lock, read again when it changes."""

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from ml_platform.atomic_files import file_stamp, locked, replace_file
from ml_platform.gateway_identity import GatewaySigner
from ml_platform.governance.audit import record_event
from ml_platform.login.passwords import check_new, hashed
from ml_platform.login.roles import UIS, in_words, parse_roles
from ml_platform.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,61}[A-Za-z0-9])?")
_GROUP = re.compile(r"[^\s:`\"'\\/,\x00-\x1f\x7f][^:`\"'\\/,\x00-\x1f\x7f]{0,62}")


class AccountRefused(ValueError):
    """An account that cannot be made or changed as was wanted."""


class AccountsDamaged(ValueError):
    """A file of accounts that cannot be read."""


class Account(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is kept of an account.

    Attributes
    ----------
    password
        Hash by argon2id, with its parameters.
    roles
        Role by user interface; none where it is missing.
    stamp
        Drawn anew with each password, and when the account is disabled: sessions begun under another one have ended.
    """

    name: str
    password: str
    roles: dict[str, str]
    groups: tuple[str, ...] = ()
    stamp: str
    created_at: datetime
    changed_at: datetime
    is_disabled: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    accounts: list[Account] = []


class AccountStore:
    """The accounts of a home.

    Parameters
    ----------
    by
        Principal whom the audit log names for changes; the user of this process when None.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> store = AccountStore(Settings(home=Path(tempfile.mkdtemp())))
    >>> _ = store.add("ada", "correct horse battery", roles=["viewer"])
    >>> store.get("ada").roles["dagster"], store.get("Ada"), "horse" in store.path.read_text()
    ('viewer', None, False)
    """

    def __init__(self, settings: Settings, *, by: str | None = None) -> None:
        self._settings, self._by = settings, by
        self.path = settings.login_dir / "accounts.json"
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._accounts: dict[str, Account] = {}

    def add(self, name: str, password: str, *, roles: Iterable[str], groups: Iterable[str] = ()) -> Account:
        """Make an account, which puts login into use.

        Raises
        ------
        AccountRefused
            For a name that is taken, also in other capitals, or cannot be one; for no role; for a group's name.
        PasswordRefused
            For a password that is too easy to guess.
        RoleUnknown
            For a role that there is not.
        """
        if _NAME.fullmatch(name) is None:
            raise AccountRefused(f"wanted a name of 1 to 63 letters, digits or any of . _ @ + -, found {name!r}")
        given = parse_roles(roles)
        if not given:
            raise AccountRefused("wanted a role at least, as in --role viewer")
        check_new(password, name)
        kept = hashed(password)

        def make(accounts: dict[str, Account]) -> Account:
            taken = next((other for other in accounts if other.lower() == name.lower()), None)
            if taken is not None:
                raise AccountRefused(f"there is an account {taken} already: change it by `accounts role` or `password`")
            now = datetime.now(UTC)
            return Account(
                name=name, password=kept, roles=given, groups=_checked(groups), stamp=_new_stamp(), created_at=now,
                changed_at=now,
            )  # fmt: skip

        account = self._change(name, "account added", make)
        GatewaySigner(self._settings.keys_dir, create=True)
        return account

    def set_roles(self, name: str, roles: Iterable[str], groups: Iterable[str] | None = None) -> Account:
        """Replace an account's roles, and its groups unless None, at once in its sessions too (raises as `add`)."""
        given = parse_roles(roles)

        def change(accounts: dict[str, Account]) -> Account:
            old = self._existing(accounts, name)
            kept = old.groups if groups is None else _checked(groups)
            changed = msgspec.structs.replace(old, roles=given or old.roles, groups=kept)
            _keep_an_admin(accounts, changed)
            return changed

        return self._change(name, "account roles changed", change)

    def set_password(self, name: str, password: str, *, by: str | None = None) -> Account:
        """Replace a password, which ends the account's sessions (raises as `add`)."""
        check_new(password, name)
        kept = hashed(password)

        def change(accounts: dict[str, Account]) -> Account:
            return msgspec.structs.replace(self._existing(accounts, name), password=kept, stamp=_new_stamp())

        return self._change(name, "account password changed", change, by=by)

    def disable(self, name: str) -> Account:
        """Let nobody sign in by an account any more, and end its sessions (raises AccountRefused)."""

        def change(accounts: dict[str, Account]) -> Account:
            changed = msgspec.structs.replace(self._existing(accounts, name), is_disabled=True, stamp=_new_stamp())
            _keep_an_admin(accounts, changed)
            return changed

        return self._change(name, "account disabled", change)

    def enable(self, name: str) -> Account:
        """Let a disabled account sign in again (raises AccountRefused)."""
        return self._change(
            name,
            "account enabled",
            lambda accounts: msgspec.structs.replace(self._existing(accounts, name), is_disabled=False),
        )

    def accounts(self) -> list[Account]:
        """Every account, in the order of their names."""
        return sorted(self._reload().values(), key=lambda account: account.name.lower())

    def get(self, name: str) -> Account | None:
        """The account of a name, as the file has it now."""
        return self._reload().get(name)

    def _existing(self, accounts: Mapping[str, Account], name: str) -> Account:
        if name not in accounts:
            raise AccountRefused(f"there is no account {name}; there are: {', '.join(sorted(accounts)) or 'none yet'}")
        return accounts[name]

    def _change(
        self, name: str, action: str, make: Callable[[dict[str, Account]], Account], *, by: str | None = None
    ) -> Account:
        with locked(self.path.with_suffix(".lock")):
            accounts = self._read()
            account = msgspec.structs.replace(make(accounts), changed_at=datetime.now(UTC))
            groups = f"; groups {', '.join(account.groups)}" if account.groups else ""
            detail = f"{name}: {in_words(account.roles)}{groups}"
            # Before it is done: nothing happens to an account that is not in the audit log.
            record_event(self._settings.audit_dir, self._settings.keys_dir, action, detail, by=by or self._by)
            accounts[name] = account
            file = _File(list(accounts.values()))
            replace_file(self.path, msgspec.json.format(msgspec.json.encode(file), indent=2))
        return account

    def _reload(self) -> dict[str, Account]:
        with self._lock:
            try:
                stamp = file_stamp(self.path)
            except FileNotFoundError:
                return self._accounts  # accounts that were there before the file went stay as they were
            if stamp != self._stamp:
                self._accounts = self._read()
                self._stamp = stamp
            return self._accounts

    def _read(self) -> dict[str, Account]:
        try:
            file = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise AccountsDamaged(f"{self.path}: not a file of accounts ({error}); restore it from a backup") from error
        return {account.name: account for account in file.accounts}


def _keep_an_admin(accounts: Mapping[str, Account], changed: Account) -> None:
    """Refuse to take the last admin away: whoever has locked everybody out could only delete the file."""

    def admins(some: Iterable[Account]) -> bool:
        return any(not one.is_disabled and all(one.roles.get(ui) == "admin" for ui in UIS) for one in some)

    if admins(accounts.values()) and not admins({**accounts, changed.name: changed}.values()):
        raise AccountRefused(f"{changed.name} is the last admin: make another one first")


def _checked(groups: Iterable[str]) -> tuple[str, ...]:
    for group in groups:
        if _GROUP.fullmatch(group) is None:
            raise AccountRefused(f"wanted a group's name without any of : ` \" ' \\ / or comma, found {group!r}")
    return tuple(dict.fromkeys(groups))


def _new_stamp() -> str:
    return secrets.token_hex(8)
