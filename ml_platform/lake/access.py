"""Who may see what of a lake: the seam between a lake, which enforces, and a policy, which decides.

A lake that is given a `Guard` gives its principal nothing that the guard does not grant: columns that are not granted
are absent, masked ones hold the mask's value, rows that the filter refuses do not exist. Standard library only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

OPEN = "local"  # who reads where nobody is asked for a key


@dataclass(frozen=True)
class TableAccess:
    """What a principal sees of a table.

    Attributes
    ----------
    columns
        Granted columns → SQL expression of the mask over the table's own columns, None for the value as it is. None in
        place of the mapping: all columns as they are.
    row_filter
        SQL condition over the table's own, unmasked columns; rows for which it is not true are absent. None for all.

    Examples
    --------
    >>> TableAccess().is_whole, TableAccess({"tailnum": "left(tailnum, 1)"}, "carrier = 'UA'").is_whole
    (True, False)
    """

    columns: Mapping[str, str | None] | None = None
    row_filter: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether everything is granted as it is."""
        return self.columns is None and self.row_filter is None

    @property
    def is_plain(self) -> bool:
        """Whether every row is granted, and every granted column as it is."""
        return self.row_filter is None and all(mask is None for mask in (self.columns or {}).values())


class AccessDenied(PermissionError):
    """A principal wanted what is not granted.

    Parameters
    ----------
    principal
        Who asked.
    privilege
        What was wanted: `select`, `modify`, `predict` …
    name
        The catalogue object: `raw.flights`, `raw.flights.tailnum`, `model:flight_delay`. Only one that the principal
        may browse: of a hidden one, say what is said of one that does not exist.
    remedy
        What to do next: who owns it, the command that grants it.
    """

    def __init__(self, principal: str, privilege: str, name: str, remedy: str = "") -> None:
        super().__init__(f"{principal} lacks the privilege '{privilege}' on {name}. {remedy}".rstrip())
        self.principal, self.privilege, self.name, self.remedy = principal, privilege, name, remedy


@dataclass(frozen=True)
class TableRead:
    """A read of a table, for who keeps account of reads.

    Attributes
    ----------
    principal
        Who read, as `user:<name>`, `service:<name>`; `OPEN` where nobody is asked.
    table, version
        What was read; the version is None when the read was refused before one was opened.
    columns
        Columns that were read.
    rows
        Rows that were given: of the answer, for SQL. None when they are read later, lazily.
    path
        How: `sql`, `sql-server`, `notebook`, `training`, `batch`, `console`, `lookup`, `history` …
    is_refused
        Whether the read was refused.
    """

    principal: str
    table: str
    version: int | None
    columns: tuple[str, ...]
    rows: int | None
    path: str
    is_refused: bool = False


Reads = Callable[[TableRead], None]


class Guard(Protocol):
    """Decides what one principal may; a lake asks it before it opens anything. Tables are named `schema/name`."""

    principal: str

    def access(self, table: str, columns: Sequence[str]) -> TableAccess:
        """What the principal sees of a table that has these columns (raises AccessDenied for nothing)."""
        ...

    def browses(self, table: str) -> bool:
        """Whether the principal may know that a table exists. Also asked of tables that do not exist."""
        ...

    def check(self, privilege: str, name: str) -> None:
        """Refuse what is not granted on a catalogue object, e.g. `modify` on `raw.flights` (raises AccessDenied)."""
        ...


def object_name(table: str) -> str:
    """Name of a table as a catalogue object.

    Examples
    --------
    >>> object_name("raw/flights"), object_name("quarantine/raw/flights")
    ('raw.flights', 'quarantine.raw/flights')
    """
    return table.replace("/", ".", 1)


def base_table(table: str) -> str | None:
    """Table whose rows another one quotes as they are: rejected rows, and rows pushed to a view; else None.

    Such a table is given only to whoever is also granted all of the other one, without masks and filters.

    Examples
    --------
    >>> base_table("quarantine/raw/flights"), base_table("pushed/weather__0123456789ab"), base_table("raw/flights")
    ('raw/flights', 'features/weather', None)
    """
    if table.startswith("quarantine/") and table.count("/") > 1:
        return table.removeprefix("quarantine/")
    return rows_of_base(table)


def rows_of_base(table: str) -> str | None:
    """View whose rows a table of pushed rows holds, so that its existence is no more than a part of the view's."""
    schema, _, name = table.partition("/")
    view, mark, _ = name.rpartition("__")
    return f"features/{view}" if schema == "pushed" and mark else None
