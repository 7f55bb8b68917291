"""Preprocessing of scikit-learn → nodes of a graph, in double: what comes before the estimator of a Pipeline.

Numbers go through nodes that do what the transformer does. What turns categories into numbers, whatever it is, is asked
once for each category, for a missing and for an unseen one, and becomes a table that the graph looks up: exact by
construction, also for chains such as an imputer before an encoder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_platform.model_import.foreign import decoded
from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Feature
from ml_platform.training.export.graph import Graph

_UNSEEN_NUMBERS = (0.1234567, -98765.4)  # no category of anybody
_MOST_CELLS = 20_000_000


@dataclass(frozen=True)
class Numbers:
    """A matrix of doubles in the graph: its name, and how many columns it has."""

    name: str
    width: int


@dataclass(frozen=True)
class Selected:
    """Columns of the matrix `X`, as the features of these positions."""

    positions: tuple[int, ...]


@dataclass
class Preprocessing:
    """Adds transformers to a graph.

    Attributes
    ----------
    graph
        Gets the nodes.
    features
        Of the matrix `X`.
    named
        Whether the library is given columns by name (a data frame), or as an array.
    """

    graph: Graph
    features: Sequence[Feature]
    named: bool
    _count: int = 0

    def apply(self, transformer: Any, data: Numbers | Selected) -> Numbers:  # noqa: PLR0911 - one for each kind
        """Add a fitted transformer (raises ValueError for one that has no graph)."""
        kind = type(transformer).__name__
        if kind == "ColumnTransformer":
            return self._column_transformer(transformer, data)
        if kind == "FeatureUnion":
            return self._joined([self.apply(one, data) for _, one in transformer.transformer_list if one != "drop"])
        if isinstance(data, Selected) and _is_encoder(transformer):
            return self._tabulated(transformer, data)
        if kind == "Pipeline":
            for _, step in transformer.steps:
                data = self.apply(step, data)
            return self.numbers(data)
        if transformer in ("passthrough", None):
            return self.numbers(data)
        if (adder := _NUMERIC.get(kind)) is not None:
            return adder(self, transformer, self.numbers(data))
        if hasattr(transformer, "get_support"):  # selects columns
            return self.picked(self.numbers(data), np.flatnonzero(transformer.get_support()).tolist())
        raise ValueError(
            f"the transformer {kind} has no exact graph here. Those that have: ColumnTransformer, Pipeline, "
            "FeatureUnion, "
            f"encoders of categories, selectors of features, {', '.join(sorted(_NUMERIC))}. Or convert the whole "
            "model to "
            "ONNX with a converter of your choice, and import that file"
        )

    def numbers(self, data: Numbers | Selected) -> Numbers:
        """Columns as a matrix of doubles (raises ValueError where some are text)."""
        if isinstance(data, Numbers):
            return data
        texts = [self.features[i].name for i in data.positions if self.features[i].categories is not None]
        if texts:
            raise ValueError(f"text goes into a step that takes numbers: {', '.join(texts)}; encode it before")
        if data.positions == tuple(range(len(self.features))):
            return Numbers("X", len(data.positions))
        return self.picked(Numbers("X", len(self.features)), list(data.positions))

    def name(self, what: str) -> str:
        """A name that no node has yet."""
        self._count += 1
        return f"{what}_{self._count}"

    def node(self, op: str, inputs: Sequence[str], **attributes: object) -> str:
        """Add a node."""
        return self.graph.add(op, inputs, self.name(op.lower()), **attributes)

    def constant(self, values: object, dtype: type[np.generic] = np.float64) -> str:
        """Add a constant."""
        return self.graph.constant(self.name("constant"), values, dtype)

    def picked(self, data: Numbers, positions: list[int]) -> Numbers:
        """Some columns of a matrix."""
        return Numbers(self.node("Gather", [data.name, self.constant(positions, np.int64)], axis=1), len(positions))

    def _joined(self, parts: list[Numbers]) -> Numbers:
        parts = [one for one in parts if one.width]
        if len(parts) == 1:
            return parts[0]
        return Numbers(self.node("Concat", [one.name for one in parts], axis=1), sum(one.width for one in parts))

    def _column_transformer(self, transformer: Any, data: Numbers | Selected) -> Numbers:
        parts = []
        for name, one, _ in transformer.transformers_:
            positions = [int(i) for i in transformer._transformer_to_input_indices.get(name, [])]
            if (isinstance(one, str) and one == "drop") or not positions:
                continue
            if isinstance(data, Numbers):
                parts.append(self.apply(one, self.picked(data, positions)))
            else:
                parts.append(self.apply(one, Selected(tuple(data.positions[i] for i in positions))))
        return self._joined(parts)

    def _tabulated(self, transformer: Any, data: Selected) -> Numbers:
        """Ask the transformer for each category of each column, the others being at their first one."""
        columns = [_Coded.of(self.features[i], transformer) for i in data.positions]
        base = [one.values[0] for one in columns]
        start = self._transformed(transformer, data, [base])
        if start is None:
            raise ValueError(f"{type(transformer).__name__} refuses its own categories {base}")
        width, parts = start.shape[1], []
        if sum(len(one.values) + 2 for one in columns) * width > _MOST_CELLS:
            raise ValueError("the columns that categories become would take too large a table")
        owners = np.full(width, -1)
        for place, (position, column) in enumerate(zip(data.positions, columns, strict=True)):
            table = self._table(transformer, data, base, place, column)
            moved = np.flatnonzero((~_same(table, start)).any(axis=0))
            if (shared := owners[moved] >= 0).any():
                raise ValueError(
                    f"{type(transformer).__name__} makes one number of several columns (output {moved[shared][0]}), "
                    "for which "
                    "there is no table"
                )
            owners[moved] = place
            parts.append((position, column, moved, table[:, moved]))
        looked_up, order = list[str](), list[int]()
        for position, column, moved, table in parts:
            if len(moved):
                code = column.code(self, position)
                looked_up.append(self.node("Gather", [self.constant(table), code], axis=0))
                order += moved.tolist()
        fixed = np.flatnonzero(owners < 0)
        if len(fixed):
            looked_up.append(self._fixed(start[0, fixed]))
            order += fixed.tolist()
        joined = self._joined([Numbers(name, 1) for name in looked_up])
        return self.picked(Numbers(joined.name, width), np.argsort(order).tolist())

    def _table(self, transformer: Any, data: Selected, base: list[object], place: int, column: "_Coded") -> np.ndarray:
        """What comes out for null, unseen and each category (codes × outputs); zeros for what is refused."""

        def rows(values: Sequence[object]) -> list[list[object]]:
            return [[*base[:place], value, *base[place + 1 :]] for value in values]

        known = self._transformed(transformer, data, rows(column.values))
        if known is None:
            raise ValueError(f"{type(transformer).__name__} refuses its own categories of {column.name}")
        zeros = np.zeros((1, known.shape[1]))
        null = self._transformed(transformer, data, rows([np.nan]))
        unseen = self._transformed(transformer, data, rows(column.unseen))
        if unseen is not None and not _same(unseen, unseen[:1]).all():
            raise ValueError(f"{type(transformer).__name__} takes {column.name} for a number and for a category")
        return np.vstack([zeros if null is None else null, zeros if unseen is None else unseen[:1], known])

    def _transformed(self, transformer: Any, data: Selected, rows: list[list[object]]) -> np.ndarray | None:
        """What the transformer makes of rows of values; None where it refuses them."""
        import pandas as pd

        columns = {}
        for place, position in enumerate(data.positions):
            feature, values = self.features[position], [row[place] for row in rows]
            columns[feature.name] = pd.Series(values, dtype=object if feature.categories is not None else np.float64)
        frame = pd.DataFrame(columns)
        names = list(getattr(transformer, "feature_names_in_", frame.columns))
        frame.columns = pd.Index(names)
        try:
            result = transformer.transform(frame if self.named else frame.to_numpy())
        except (ValueError, TypeError, KeyError):
            return None
        dense = result.toarray() if hasattr(result, "toarray") else np.asarray(result)
        return np.asarray(dense, dtype=np.float64)

    def _fixed(self, values: np.ndarray) -> str:
        """The same numbers for every row (rows × values)."""
        one = self.picked(Numbers("X", len(self.features)), [0]).name
        zero = self.node("Cast", [self.node("Cast", [self.node("IsInf", [one])], to=9)], to=11)
        nothing = self.node("Mul", [zero, self.constant(0.0)])
        return self.node("Add", [nothing, self.constant(values.reshape(1, -1))])


@dataclass(frozen=True)
class _Coded:
    """A column of categories: text, whose codes the matrix has, or numbers that are compared."""

    name: str
    values: tuple[Any, ...]
    unseen: tuple[Any, ...]
    is_text: bool

    @classmethod
    def of(cls, feature: Feature, transformer: Any) -> "_Coded":
        if feature.categories is not None:
            if not feature.categories:
                raise ValueError(f"{feature.name} has no category")
            [unseen] = decoded(np.array([[UNSEEN_CODE]]), [feature])[feature.name]
            return cls(feature.name, feature.categories, (unseen,), True)
        numbers = sorted(
            {float(one) for values in categories_of(transformer) for one in values if _is_number(one)} or {0.0}
        )
        return cls(feature.name, tuple(numbers), _UNSEEN_NUMBERS, False)

    def code(self, into: Preprocessing, position: int) -> str:
        """Row of the table for each row of the matrix (rows,), int64: null, unseen, then the categories."""
        column = into.picked(Numbers("X", len(into.features)), [position]).name
        if not self.is_text:
            equal = into.node("Equal", [column, into.constant(np.array([self.values]))])
            places = into.constant(np.array([[float(i + 1) for i in range(len(self.values))]]))
            hit = into.node("Mul", [into.node("Cast", [equal], to=11), places])
            total = into.node("ReduceSum", [hit, into.constant([1], np.int64)], keepdims=1)
            code = into.node("Sub", [total, into.constant(1.0)])  # -1 where no number is equal
            null = into.node("IsNaN", [column])
            column = into.node("Where", [null, into.constant(MISSING_CODE), code])
        whole = into.node("Cast", [column], to=7)
        flat = into.node("Reshape", [whole, into.constant([-1], np.int64)])
        return into.node("Add", [flat, into.constant(int(-MISSING_CODE), np.int64)])


def categories_of(transformer: Any) -> Iterator[Sequence[Any]]:
    """Lists of categories of the encoders in a transformer."""
    if isinstance(transformer, str) or transformer is None:
        return
    found = getattr(transformer, "categories_", None)
    if found is not None:
        yield from (list(one) for one in found)
    for _, one in getattr(transformer, "steps", ()):
        yield from categories_of(one)
    for _, one, _ in getattr(transformer, "transformers_", ()):
        yield from categories_of(one)
    for _, one in getattr(transformer, "transformer_list", ()):
        yield from categories_of(one)


def texts_by_input(model: Any) -> dict[int, set[str]]:  # noqa: PLR0911 - one for each kind
    """Categories of text that the first step of a model knows, by the position of the input."""
    kind = type(model).__name__
    if kind == "Pipeline":  # an imputer before an encoder leaves the columns in their places
        return next((one for one in (texts_by_input(step) for _, step in model.steps[:2]) if one), {})
    if kind == "TransformedTargetRegressor":
        return texts_by_input(model.regressor_)
    if hasattr(model, "best_estimator_"):
        return texts_by_input(model.best_estimator_)
    if kind == "CalibratedClassifierCV":
        return texts_by_input(model.calibrated_classifiers_[0].estimator)
    texts: dict[int, set[str]] = {}
    if kind == "ColumnTransformer":
        for name, one, _ in model.transformers_:
            positions = [int(i) for i in model._transformer_to_input_indices.get(name, [])]
            for place, values in texts_by_input(one).items():
                texts.setdefault(positions[place], set()).update(values)
        return texts
    if kind in ("FeatureUnion", "VotingClassifier", "VotingRegressor"):
        parts = [one for _, one in model.transformer_list] if kind == "FeatureUnion" else model.estimators_
        for one in parts:
            for place, values in texts_by_input(one).items():
                texts.setdefault(place, set()).update(values)
        return texts
    for place, values in enumerate(getattr(model, "categories_", ())):
        if known := {one for one in values if isinstance(one, str)}:
            texts[place] = set(known)
    return texts


def _is_encoder(transformer: Any) -> bool:
    return next(categories_of(transformer), None) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | bool | np.bool_) and not np.isnan(float(value))


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one == other) | (np.isnan(one) & np.isnan(other))


def _imputer(into: Preprocessing, step: Any, data: Numbers) -> Numbers:
    if not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        raise ValueError(
            f"SimpleImputer with missing_values={step.missing_values!r} has no graph; NaN alone is missing here"
        )
    fill = np.asarray(step.statistics_, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(fill)).tolist()
    missing = into.node("IsNaN", [data.name])
    kept = Numbers(into.node("Where", [missing, into.constant(np.nan_to_num(fill)), data.name]), data.width)
    parts = [kept if len(known) == data.width else into.picked(kept, known)]
    if step.indicator_ is not None:
        flags = Numbers(into.node("Cast", [missing], to=11), data.width)
        parts.append(into.picked(flags, [int(i) for i in step.indicator_.features_]))
    return into._joined(parts)


def _standard(into: Preprocessing, step: Any, data: Numbers) -> Numbers:
    name = data.name
    if step.with_mean:
        name = into.node("Sub", [name, into.constant(step.mean_)])
    if step.with_std:
        name = into.node("Div", [name, into.constant(step.scale_)])
    return Numbers(name, data.width)


def _robust(into: Preprocessing, step: Any, data: Numbers) -> Numbers:
    name = data.name
    if step.with_centering:
        name = into.node("Sub", [name, into.constant(step.center_)])
    if step.with_scaling:
        name = into.node("Div", [name, into.constant(step.scale_)])
    return Numbers(name, data.width)


def _min_max(into: Preprocessing, step: Any, data: Numbers) -> Numbers:
    name = into.node("Mul", [data.name, into.constant(step.scale_)])
    name = into.node("Add", [name, into.constant(step.min_)])
    if step.clip:
        low, high = step.feature_range
        name = into.node("Clip", [name, into.constant(float(low)), into.constant(float(high))])
    return Numbers(name, data.width)


def _max_abs(into: Preprocessing, step: Any, data: Numbers) -> Numbers:
    return Numbers(into.node("Div", [data.name, into.constant(step.scale_)]), data.width)


def _components(into: Preprocessing, step: Any, data: Numbers) -> Numbers:
    name = data.name
    if getattr(step, "mean_", None) is not None:
        name = into.node("Sub", [name, into.constant(step.mean_)])
    name = into.node("MatMul", [name, into.constant(step.components_.T)])
    if getattr(step, "whiten", False):
        name = into.node("Div", [name, into.constant(np.sqrt(step.explained_variance_))])
    return Numbers(name, len(step.components_))


def _polynomial(into: Preprocessing, step: Any, data: Numbers) -> Numbers:
    ones = into._fixed(np.ones(1))
    padded = into._joined([data, Numbers(ones, 1)])
    factors = [[i for i, power in enumerate(row) for _ in range(int(power))] for row in step.powers_]
    degree = max(1, *map(len, factors))
    name = ""
    for place in range(degree):
        part = into.picked(padded, [one[place] if place < len(one) else data.width for one in factors]).name
        name = into.node("Mul", [name, part]) if name else part
    return Numbers(name, len(factors))


def _function(into: Preprocessing, step: Any, data: Numbers) -> Numbers:
    return Numbers(add_function(into, step.func, data.name), data.width)


def add_function(into: Preprocessing, function: Any, name: str) -> str:
    """Add a function of NumPy to a graph (raises ValueError for one that is not known)."""
    if function is None:
        return name
    known = {np.log: ["Log"], np.exp: ["Exp"], np.sqrt: ["Sqrt"], np.abs: ["Abs"], np.square: ["Square"]}
    if function is np.log1p:
        return into.node("Log", [into.node("Add", [name, into.constant(1.0)])])
    if function is np.expm1:
        return into.node("Sub", [into.node("Exp", [name]), into.constant(1.0)])
    if function is np.square:
        return into.node("Mul", [name, name])
    if function in known:
        return into.node(known[function][0], [name])
    raise ValueError(
        f"the function {getattr(function, '__qualname__', function)} is Python code, which has no graph; NumPy's log, "
        "log1p, "
        "exp, expm1, sqrt, abs and square have one"
    )


_NUMERIC = {
    "SimpleImputer": _imputer,
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "PCA": _components,
    "TruncatedSVD": _components,
    "PolynomialFeatures": _polynomial,
    "FunctionTransformer": _function,
}
