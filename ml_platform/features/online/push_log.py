"""The record of the push log: serving writes pushed rows as a line of a file before it answers.

`ml_platform.segment_log.segments` writes the lines, `online.pushed_rows` ingests them into the lake.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

DEFINITION_DIGITS = 12  # of a definition's hash, in the names of its stream and its table


class Pushed(msgspec.Struct, kw_only=True):
    """The rows of one request, all for the same definition of a view.

    `types` has the type of each column (`ml_platform.registry.manifest.Input.type`) in the order of a row's values:
    entity, event time, features. Timestamps are microseconds since 1970 (UTC).
    """

    request_id: str
    view: str
    view_hash: str
    time: datetime
    caller: str | None
    types: dict[str, str]
    rows: Sequence[Sequence[Any]]


def stream(view: str, view_hash: str) -> str:
    """Folder of a definition's log, relative to the platform's `push_log_dir`.

    Each definition has its own stream and table, so that rows of different meaning or type are never mixed.
    """
    return f"{view}/{view_hash[:DEFINITION_DIGITS]}"
