"""Overlays: SQL sees a table together with the rows of another one, which replace those with the same keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ml_platform.lake.names import quoted


@dataclass(frozen=True)
class Overlay:
    """Rows of another table that are added to a table's own, and replace those with the same keys.

    Attributes
    ----------
    table
        The other table.
    keys, columns
        Columns that are read of both tables: those that identify a row, and the others.
    newest
        Columns of the other table; among its rows with equal keys the one with the greatest values counts.
    sources
        Column → column of the other table from which it is read, where the names differ.
    """

    table: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    newest: tuple[str, ...]
    sources: Mapping[str, str] = field(default_factory=dict)

    def select(self, own: str, other: str, types: Mapping[str, str]) -> str:
        """Make a SELECT of the rows of both, given a SELECT for each table and the SQL types of the own columns."""
        names = [*self.keys, *self.columns]
        read = ", ".join(
            f"CAST({quoted(self.sources.get(name, name))} AS {types[name]}) AS {quoted(name)}" for name in names
        )
        keys, columns = (", ".join(map(quoted, some)) for some in (self.keys, names))
        by = ", ".join(quoted(self.sources.get(name, name)) for name in self.keys)
        last = ", ".join(f"{quoted(name)} DESC" for name in self.newest)
        return (
            f"WITH own AS ({own}), laid_over AS (SELECT {read} FROM ({other}) "
            f"QUALIFY row_number() OVER (PARTITION BY {by} ORDER BY {last}) = 1) "
            f"SELECT {columns} FROM own ANTI JOIN laid_over USING ({keys}) UNION ALL SELECT {columns} FROM laid_over"
        )


Overlays = Callable[[str, int], Overlay | None]  # of a table and version
