"""Where the access policy is kept: one small file, replaced whole under a lock, read again when it changes.

Serving imports this: standard library and msgspec only.
"""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ml_platform.atomic_files import FileStamp, file_stamp, locked, replace_file
from ml_platform.governance.access.policy import Document, Policy
from ml_platform.governance.audit import record_event

RELOAD_SECONDS = 0.3


IN_FORCE = "access_policy.in_force"  # among the keys: that there is a policy, whatever becomes of its own file


class PolicyUnreadable(ValueError):
    """The file of the policy cannot be read, or is lost: nothing is allowed until it can."""


class PolicyStore:
    """The access policy below a folder.

    Parameters
    ----------
    folder
        The platform's `access_dir`.
    audit, keys
        The platform's `audit_dir` and `keys_dir`, for who changes the policy; None for who only reads it.
    owners
        Gives further owners of objects, such as those that definitions name.

    Examples
    --------
    >>> import tempfile
    >>> store = PolicyStore(Path(tempfile.mkdtemp()) / "access")
    >>> store.in_use()
    False
    """

    def __init__(
        self,
        folder: Path,
        audit: Path | None = None,
        keys: Path | None = None,
        *,
        owners: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.folder = folder
        self.path = folder / "policy.json"
        self._in_force = folder.parent / "keys" / IN_FORCE
        self._audit, self._keys = audit, keys
        self._owners = owners
        self._lock = threading.Lock()
        self._looked = -1e9
        self._stamp: FileStamp | None = None
        self._ends = float("inf")  # when the next grant ends, in seconds since 1970
        self._policy = Policy(Document())
        self._revision = 0

    @property
    def policy(self) -> Policy:
        """The policy in force. A change of the file counts within `RELOAD_SECONDS`.

        Raises
        ------
        PolicyUnreadable
            When the file is there and is no policy.
        """
        self._reload()
        return self._policy

    def in_use(self) -> bool:
        """Whether a policy is in force: from the first grant on, until an admin stops it, whatever has ended since."""
        return self.policy.document.started is not None

    def revision(self) -> int:
        """Which policy is in force, by a number: under the same one, all decisions are the same."""
        self._reload()
        return self._revision

    def read(self) -> Document:
        """The document as it stands in the file now (raises PolicyUnreadable)."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Document)
        except FileNotFoundError:
            if self._in_force.exists():
                raise PolicyUnreadable(
                    f"{self.path} is lost while an access policy is in force, so nothing is allowed: restore it from a "
                    f"backup. To end the policy for good, remove {self._in_force} too"
                ) from None
            return Document()
        except msgspec.MsgspecError as error:
            raise PolicyUnreadable(f"{self.path}: not an access policy ({error}); restore it from a backup") from error

    def change(self, change: Callable[[Document], Document], action: str, detail: str, *, by: str) -> Document:
        """Change the document while nobody else does; it is in the audit log before it counts.

        Raises what `change` raises, of a document that must not be; then nothing changes.
        """
        with locked(self.folder / "policy.lock"):
            before = self.read()
            after = change(before)
            Policy(after)  # refuses groups in a circle
            if after == before:
                return before
            if self._audit is not None and self._keys is not None:
                record_event(self._audit, self._keys, action, detail, by=by)
            if after.started is not None and not self._in_force.exists():
                replace_file(self._in_force, f"since {after.started.isoformat()}; see {self.path}\n".encode())
            replace_file(self.path, msgspec.json.format(msgspec.json.encode(after), indent=1))
            if after.started is None:
                self._in_force.unlink(missing_ok=True)
            self._looked = -1e9
        return after

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._looked < RELOAD_SECONDS:
            return
        with self._lock:
            try:
                stamp = file_stamp(self.path)
            except FileNotFoundError:
                if self._stamp is None:
                    self.read()  # refuses when a policy is in force whose file is lost
                self._looked = now
                return  # a policy that was there before the file went stays in force
            if stamp != self._stamp or time.time() >= self._ends:
                self._policy = Policy(self.read(), now=datetime.now(UTC), owners=self._owners())
                self._stamp = stamp
                end = self._policy.next_end
                self._ends = float("inf") if end is None else end.timestamp()
                self._revision += 1
            self._looked = now
