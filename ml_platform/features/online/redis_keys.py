"""Keys of the online store in Redis."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

PREFIX = b"ml_platform:online:"

_Item = TypeVar("_Item")


def chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Split items into lists of at most a size."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def view_key(view: str) -> bytes:
    """Record of the view's definition in force."""
    return PREFIX + b"view:" + view.encode()


def written_key(view: str) -> bytes:
    """When the view was last written."""
    return PREFIX + b"written:" + view.encode()


def newest_key(generation: int) -> bytes:
    """Newest event time of a generation."""
    return PREFIX + b"newest:%d" % generation


def pushed_key(generation: int) -> bytes:
    """Rows of a generation that were pushed, with the number of the push."""
    return PREFIX + b"pushed:%d" % generation


def count_key(generation: int) -> bytes:
    """Number of rows of a generation."""
    return PREFIX + b"count:%d" % generation


def marks_key(view: str) -> bytes:
    """How far writing the view has come, see `OnlineStore.mark`."""
    return PREFIX + b"marks:" + view.encode()


def lock_key(view: str) -> bytes:
    """Lock of the view's publishers."""
    return PREFIX + b"lock:" + view.encode()


def row_key(generation: int, key: bytes) -> bytes:
    """Row of an entity."""
    return PREFIX + b"row:%d:" % generation + key
