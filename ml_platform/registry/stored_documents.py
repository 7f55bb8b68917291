"""Reads and writes the JSON documents of the release store."""

from pathlib import Path
from typing import TypeVar

import msgspec

Document = TypeVar("Document", bound=msgspec.Struct)


class DocumentUnreadable(ValueError):
    """A file of the store is damaged or misplaced, which the caller is not to blame for."""


def document_bytes(document: msgspec.Struct) -> bytes:
    """Encode a document to be stored, and check that it can be read again.

    Raises
    ------
    ValueError
        When it cannot, as a number that is infinite or NaN: JSON has neither.
    """
    content = msgspec.json.format(msgspec.json.encode(document), indent=2)
    try:
        msgspec.json.decode(content, type=type(document))
    except msgspec.MsgspecError as error:
        raise ValueError(f"{type(document).__name__}: could not be read again if it was stored ({error})") from error
    return content


def read_document(path: Path, kind: type[Document], wanted: str, remedy: str) -> Document:
    """Read a document.

    Raises
    ------
    FileNotFoundError
        When it is not there.
    DocumentUnreadable
        When it is not what it should be, with the remedy.
    """
    content = path.read_bytes()
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise DocumentUnreadable(f"{path}: not {wanted} ({error}); {remedy}") from error
