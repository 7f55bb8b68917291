"""Tables that SQL sees together with another one, whose rows take the place of theirs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ml_platform.lake.names import quoted


@dataclass(frozen=True)
class Overlay:
    """Rows of another table that stand beside a table's own, and in place of those with the same keys.

    Attributes
    ----------
    table
        The other table.
    keys, columns
        What is read of both tables: columns that together name a row, and the others.
    newest
        Columns of the other table: of its rows with equal keys the one with the greatest values counts.
    sources
        Column → column of the other table that it is read from, where the names differ.
    """

    table: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    newest: tuple[str, ...]
    sources: Mapping[str, str] = field(default_factory=dict)

    def select(self, own: str, other: str, types: Mapping[str, str]) -> str:
        """SQL for the rows of both, given relations for either table and the SQL types of the own columns."""
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


Overlays = Callable[[str, int], Overlay | None]  # table, version → what lies over it
