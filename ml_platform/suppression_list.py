"""Which entities were erased, as keyed hashes: the document by which writers leave their rows out.

Serving imports this: standard library and msgspec only.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.atomic_files import FileStamp, file_stamp


class SuppressedEntity(msgspec.Struct, forbid_unknown_fields=True):
    """Whose rows are left out, and by which columns they are known.

    `tables` has the columns of tables that were declared to hold the entity; `names` are its columns' names in tables
    that the platform derives, and the names of fields in JSON.
    """

    tables: dict[str, list[str]] = {}
    names: list[str] = []
    hashes: list[str] = []


class Suppressions(msgspec.Struct, forbid_unknown_fields=True):
    """The document: entity → whose rows are left out, and the key of the hashes."""

    key: str
    entities: dict[str, SuppressedEntity] = {}

    def hash(self, text: str) -> str:
        """Keyed hash of a value's text."""
        return hashlib.blake2b(text.encode(), key=bytes.fromhex(self.key), digest_size=16).hexdigest()

    def holds(self, fields: Iterable[tuple[str, Any]]) -> bool:
        """Whether a row, as pairs of field and value, is of somebody who was erased.

        Examples
        --------
        >>> listed = Suppressions(key="00")
        >>> listed.entities["customer"] = SuppressedEntity(names=["customer"], hashes=[listed.hash("7")])
        >>> listed.holds([("customer", 7)]), listed.holds([("customer", 8)]), listed.holds([("shop", 7)])
        (True, False, False)
        """
        return any(
            name in one.names and self.hash(str(value)) in one.hashes
            for name, value in fields
            for one in self.entities.values()
        )


class SuppressionFile:
    """A document on this machine's disk, read again when it has changed. Looking costs one `stat`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: FileStamp | None = None
        self._listed: Suppressions | None = None

    def read(self) -> Suppressions | None:
        """The list; None where nobody was ever erased."""
        try:
            state = file_stamp(self._path)
        except FileNotFoundError:
            return None
        if state != self._state:
            self._listed = msgspec.json.decode(self._path.read_bytes(), type=Suppressions)
            self._state = state
        return self._listed
