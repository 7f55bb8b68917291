"""Splits by a set of categories: a column for each set, 1 where the code is in it, which a tree compares with one half.

ONNX Runtime has no set membership that is as fast, and a chain of thresholds would repeat the trees below it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ml_platform.registry.manifest import MISSING_CODE
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
    null_is_nan
        Whether null and unseen values are NaN in these columns, so that the split's own default direction counts; else
        they are in no set.
    """

    width: int
    coded: Mapping[int, int]
    null_is_nan: bool = False
    columns: dict[tuple[int, frozenset[int]], int] = field(default_factory=dict)

    def column(self, feature: int, codes: Iterable[int]) -> int:
        """Position of the column that is 1 where the feature's code is one of these (raises ValueError)."""
        asked = (feature, frozenset(codes))
        if len(self.columns) >= MOST_SETS and asked not in self.columns:
            raise ValueError(f"the trees split by more than {MOST_SETS:,} different sets of categories")
        return self.columns.setdefault(asked, self.width + len(self.columns))

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
        largest = max([self.coded.get(feature, 1) - 1, *(code for members in sets for code in members)])
        table = np.zeros((_FIRST + largest + 2, len(sets)))
        for column, members in enumerate(sets):
            table[[_FIRST + code for code in members], column] = 1.0
        if self.null_is_nan:
            table[:_FIRST] = np.nan
        place = graph.constant(f"{name}_feature", [feature], np.int64)
        code = graph.add("Gather", [source, place], f"{name}_value", axis=1)
        if feature not in self.coded:
            whole = graph.add("Floor", [graph.add("Abs", [code], f"{name}_size")], f"{name}_floor")
            cut = graph.add("Mul", [graph.add("Sign", [code], f"{name}_sign"), whole], f"{name}_cut")
            null = graph.add("IsNaN", [cut], f"{name}_null")
            missing = graph.constant(f"{name}_missing", MISSING_CODE)
            code = graph.add("Where", [null, missing, cut], f"{name}_filled")
        ends = [graph.constant(f"{name}_low", MISSING_CODE), graph.constant(f"{name}_high", float(largest + 1))]
        code = graph.add("Clip", [code, *ends], f"{name}_code")
        row = graph.add("Cast", [code], f"{name}_whole", to=7)  # int64
        row = graph.add("Add", [row, graph.constant(f"{name}_first", _FIRST, np.int64)], f"{name}_row")
        row = graph.add("Reshape", [row, graph.constant(f"{name}_flat", [-1], np.int64)], f"{name}_rows")
        return graph.add("Gather", [graph.constant(f"{name}_table", table), row], f"{name}_columns", axis=0)
