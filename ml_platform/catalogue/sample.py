"""A few rows of a table as texts, through a lake that shows its reader no more than they may see.

Serving has no lake: it asks for them in a process of their own, `python -m ml_platform.catalogue.sample`, which reads
the name of the table and of the reader as JSON from its input.
"""

import json
import sys
from typing import TYPE_CHECKING

import msgspec

from ml_platform.catalogue.pages import Sample

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake

ROWS = 5
LONGEST = 200  # letters of a value
MOST_COLUMNS = 200


def sample_of(lake: "Lake", table: str, rows: int = ROWS) -> Sample:
    """The first rows of a table.

    Parameters
    ----------
    lake
        With the guard of whoever will see the rows, if there is one.
    table
        `schema/name`.
    rows
        How many, at most.
    """
    try:
        frame = lake.read(table).head(rows).collect()
    except PermissionError as error:
        return Sample(says=str(error))
    except Exception as error:  # noqa: BLE001 - of whatever a damaged table makes the reader raise
        return Sample(says=f"The rows cannot be read: {type(error).__name__}: {str(error).splitlines()[0]}")
    shown = frame.columns[:MOST_COLUMNS]
    left_out = (
        f" {len(frame.columns) - len(shown)} more columns are not shown." if len(frame.columns) > len(shown) else ""
    )
    says = f"The first {frame.height} rows, in no order." if frame.height else "The table has no rows."
    return Sample(
        columns=tuple(shown),
        rows=tuple(
            tuple(None if value is None else str(value)[:LONGEST] for value in row)
            for row in frame.select(shown).rows()
        ),
        says=says + left_out,
    )


def main() -> None:
    """Write the sample of the table that the input names."""
    from ml_platform.catalogue.reader import lake_of
    from ml_platform.settings import Settings

    wanted = json.load(sys.stdin)
    sample = sample_of(lake_of(Settings(), wanted["reader"], path="console"), wanted["table"])
    sys.stdout.buffer.write(msgspec.json.encode(sample))


if __name__ == "__main__":
    main()
