"""The push log's record: rows sent to serving for a feature view are a line in a file before their answer leaves.

`ml_platform.inference.segments` writes the lines, `ml_platform.features.pushed` moves them into the lake.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

DEFINITION_DIGITS = 12  # of a definition's hash, in the names of its stream and its table


class Pushed(msgspec.Struct, kw_only=True):
    """The rows of one request, all of one definition of one view.

    `types` has each column's type (`ml_platform.registry.manifest.Input.type`) in the order of the values of a row:
    entity, event time, features. Timestamps count microseconds since 1970 (UTC).
    """

    request_id: str
    view: str
    view_hash: str
    time: datetime
    caller: str | None
    types: dict[str, str]
    rows: Sequence[Sequence[Any]]


def stream(view: str, view_hash: str) -> str:
    """Where a definition's rows are logged, below the platform's `push_log_dir`.

    Each definition has a stream and a table of its own: rows of different meaning or type never meet.
    """
    return f"{view}/{view_hash[:DEFINITION_DIGITS]}"
