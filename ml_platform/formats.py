"""The formats of what is kept on disk: which this engine reads, and what to do with others.

Standard library only, and nothing of the engine: an upgrade reads this file of another version by itself.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One kind of stored data.

    Attributes
    ----------
    name
        What is stored.
    reads
        Numbers of its format that this engine reads; the last is the one that it writes.
    migration
        What to do with data of another format.
    """

    name: str
    reads: tuple[int, ...]
    migration: str


MANIFEST = Format(
    "release manifest",
    (1,),
    "of an older one: train the model again; of a newer one: go back to the engine that wrote it, or roll back",
)
ONLINE = Format(
    "online store in SQLite",
    (0,),  # `PRAGMA user_version`
    "remove the file and materialise the assets online/<view>: it holds nothing that the lake does not have",
)
DELTA_READER = Format(
    "Delta reader protocol",
    (1, 2, 3),
    "read the table with the tool that wrote it and write it anew without the table features that are not known here",
)
DELTA_WRITER = Format("Delta writer protocol", (1, 2, 3, 4, 5, 6, 7), DELTA_READER.migration)
FORMATS = {one.name: one for one in (MANIFEST, ONLINE, DELTA_READER, DELTA_WRITER)}


def unreadable(stored: "dict[str, list[int]]") -> list[str]:
    """Say which formats of what is stored this engine does not read, and what to do.

    Parameters
    ----------
    stored
        Numbers of the formats that are on disk, by the names of `FORMATS`.

    Examples
    --------
    >>> unreadable({"online store in SQLite": [0]})
    []
    """
    return [
        f"{name}: format {number} is stored, {', '.join(map(str, FORMATS[name].reads))} can be read; "
        f"{FORMATS[name].migration}"
        for name, numbers in stored.items()
        for number in numbers
        if name in FORMATS and number not in FORMATS[name].reads
    ]
