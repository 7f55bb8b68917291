"""Splits by a set of categories: a column for each set, 1 where the code is in it, which a tree compares with one half.

ONNX Runtime has no set membership that is as fast, and a chain of thresholds would repeat the trees below it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE
from ml_platform.training.export.graph import Graph

MOST_SETS = 20_000  # a row holds one number for each
HALF = 0.5
_FIRST = int(-MISSING_CODE)  # codes before 0: null and unseen


@dataclass
class CategorySets:
    """The sets that an ensemble's trees ask for, as further columns of its matrix.

    Attributes
    ----------
    width
        Columns of the matrix without them.
    coded
        Position of each feature whose null and unseen values are codes → number of its categories. Of other features
        the value is the code, cut to a whole number.
    values
        Position of a feature whose categories are whole numbers from 0 on → those numbers, in the order of the codes.
        The matrix has the numbers themselves.
    null_is_nan
        Whether null and unseen values are NaN in these columns, so that the split's own default direction counts, and
        codes are rounded to float32; else they are in no set.
    """

    width: int
    coded: Mapping[int, int]
    values: Mapping[int, Sequence[int]] = field(default_factory=dict)
    null_is_nan: bool = False
    columns: dict[tuple[int, frozenset[int]], int] = field(default_factory=dict)

    def column(self, feature: int, codes: Iterable[int]) -> int:
        """Position of the column that is 1 where the feature's code is one of these (raises ValueError)."""
        named = self.values.get(feature)
        wanted = (feature, frozenset(codes if named is None else (named[code] for code in codes)))
        if len(self.columns) >= MOST_SETS and wanted not in self.columns:
            raise ValueError(f"the trees split by more than {MOST_SETS:,} different sets of categories")
        return self.columns.setdefault(wanted, self.width + len(self.columns))

    def extend(self, graph: Graph, source: str) -> str:
        """Add the columns to a matrix of the graph, and return the name of the wider one."""
        if not self.columns:
            return source
        parts, order = [source], list[int]()
        for feature in sorted({one for one, _ in self.columns}):
            own = {members: place for (one, members), place in self.columns.items() if one == feature}
            parts.append(self._looked_up(graph, source, feature, list(own)))
            order += own.values()
        wide = graph.add("Concat", parts, "with_sets", axis=1)
        places = [*range(self.width), *(self.width + place for place in np.argsort(order))]
        return graph.add("Gather", [wide, graph.constant("order_of_sets", places, np.int64)], "ordered_sets", axis=1)

    def _looked_up(self, graph: Graph, source: str, feature: int, sets: list[frozenset[int]]) -> str:
        """Rows of a table, by code: null, unseen, 0, 1, …, and one beyond the largest."""
        name = f"sets_{feature}"
        position = graph.constant(f"{name}_feature", [feature], np.int64)
        value = graph.add("Gather", [source, position], f"{name}_value", axis=1)
        table = self._table(feature, sets)
        code = value if feature in self.coded else self._cut(graph, value, feature, len(table) - _FIRST - 1)
        row = graph.add("Cast", [code], f"{name}_whole", to=7)  # int64
        row = graph.add("Add", [row, graph.constant(f"{name}_first", _FIRST, np.int64)], f"{name}_row")
        row = graph.add("Reshape", [row, graph.constant(f"{name}_flat", [-1], np.int64)], f"{name}_rows")
        return graph.add("Gather", [graph.constant(f"{name}_table", table), row], f"{name}_columns", axis=0)

    def _table(self, feature: int, sets: list[frozenset[int]]) -> np.ndarray:
        known = self.values.get(feature, range(self.coded.get(feature, 0)))
        largest = max([0, *known, *(code for members in sets for code in members)])
        table = np.zeros((_FIRST + largest + 2, len(sets)))
        if self.null_is_nan:
            table[:_FIRST] = np.nan
            if feature in self.values:  # any other number is unseen
                table[:] = np.nan
                table[[_FIRST + code for code in known]] = 0.0
            elif feature not in self.coded:  # a negative code is in no set
                table[_FIRST - 1] = 0.0
        for column, members in enumerate(sets):
            table[[_FIRST + code for code in members], column] = 1.0
        return table

    def _cut(self, graph: Graph, value: str, feature: int, largest: int) -> str:
        """The code of a number: cut to a whole one, and unseen where it is negative or, of named ones, not whole."""
        name = f"sets_{feature}"
        unseen, null = graph.constant(f"{name}_unseen", UNSEEN_CODE), graph.add("IsNaN", [value], f"{name}_null")
        if self.null_is_nan:  # float32 and back
            value = graph.add("Cast", [value], f"{name}_float", to=1)
            value = graph.add("Cast", [value], f"{name}_double", to=11)
        ends = [unseen, graph.constant(f"{name}_high", float(largest))]
        clipped = graph.add("Clip", [value, *ends], f"{name}_clipped")
        whole = graph.add("Floor", [graph.add("Abs", [clipped], f"{name}_size")], f"{name}_floor")
        cut = graph.add("Mul", [graph.add("Sign", [clipped], f"{name}_sign"), whole], f"{name}_cut")
        if feature in self.values:
            same = graph.add("Equal", [cut, value], f"{name}_same")
            cut = graph.add("Where", [same, cut, unseen], f"{name}_known")
        missing = graph.constant(f"{name}_missing", MISSING_CODE)
        return graph.add("Where", [null, missing, cut], f"{name}_code")
