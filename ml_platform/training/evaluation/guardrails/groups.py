"""Groups of rows by one column or several, numbered, with what each is called."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_platform.spec.guardrails import columns_of_set

_NULL = "(null)"
_NAMED = 5  # small groups that a reason names; the rest are counted


@dataclass(frozen=True)
class Groups:
    """Groups of rows.

    Attributes
    ----------
    of
        Names of the columns, as "carrier, origin".
    names
        What each group is called, in order of its values.
    codes
        Number of each row's group (rows,).
    sizes
        Rows of each group (groups,).
    """

    of: str
    names: tuple[str, ...]
    codes: np.ndarray
    sizes: np.ndarray

    @classmethod
    def by(cls, rows: pl.DataFrame, columns: str | tuple[str, ...]) -> "Groups":
        """Group rows by the texts of some columns; null is a value of its own.

        Examples
        --------
        >>> rows = pl.DataFrame({"carrier": ["UA", None, "UA"], "origin": ["JFK", "JFK", "JFK"]})
        >>> found = Groups.by(rows, ("carrier", "origin"))
        >>> found.of, found.names, found.codes.tolist(), found.sizes.tolist()
        ('carrier, origin', ('(null), JFK', 'UA, JFK'), [1, 0, 1], [1, 2])
        """
        names = columns_of_set(columns)
        keys = rows.select(pl.col(name).cast(pl.String).alias(f"{place}") for place, name in enumerate(names))
        places = [str(place) for place in range(len(names))]
        present = keys.unique().sort(places).with_row_index("group")
        joined = keys.join(present, on=places, how="left", nulls_equal=True, maintain_order="left")
        codes = joined.get_column("group").cast(pl.Int64).to_numpy()
        titles = present.select(pl.concat_str([pl.col(place).fill_null(_NULL) for place in places], separator=", "))
        return cls(
            of=", ".join(names),
            names=tuple(titles.to_series().to_list()),
            codes=codes,
            sizes=np.bincount(codes, minlength=present.height),
        )

    def named(self, chosen: np.ndarray, counts: np.ndarray) -> str:
        """Name some groups (numbers) with a count of each.

        Examples
        --------
        >>> sizes = np.array([1, 2, 3])
        >>> Groups("shop", ("a", "b", "c"), np.array([]), sizes).named(np.array([0, 2]), sizes)
        'a (1), c (3)'
        """
        shown = [f"{self.names[group]} ({counts[group]:,.0f})" for group in chosen[:_NAMED]]
        rest = len(chosen) - len(shown)
        return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
