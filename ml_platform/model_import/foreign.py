"""A model of a library as an import sees it: what it wants, what it answers, and its graph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.inference.explain import Linear, Trees
from ml_platform.registry.manifest import MISSING_CODE, Feature, Label
from ml_platform.spec.types import Task
from ml_platform.training.artifacts.bundle import UNSEEN
from ml_platform.training.export.graph import Graph

if TYPE_CHECKING:
    import pandas as pd

EXACT = 1e-8  # what libraries that work in double may differ by
FLOAT32 = 1e-4  # what those that add in float32 may


@dataclass(frozen=True)
class Bound:
    """A model bound to the features of a project.

    Attributes
    ----------
    native
        The library's own scores of a matrix: (rows,), or (rows × classes) for multiclass.
    onnx
        The graph.
    tolerance
        Largest difference of a score that is rounding.
    extremes
        Whether both are compared on values far from any real row, too.
    unexplained
        Why its scores are not explained; empty where they are.
    """

    native: Callable[[np.ndarray], np.ndarray]
    onnx: bytes
    tolerance: float = EXACT
    extremes: bool = True
    unexplained: str = ""


@dataclass(frozen=True)
class ForeignModel:
    """A model that was loaded.

    Attributes
    ----------
    library
        Name and version of the library that read it.
    summary
        What it is, in a few words.
    inputs
        Names of its inputs, in its order; none where its file has none.
    width
        How many inputs it has; None where only its graph knows.
    is_classifier
        None where it could be either.
    classes
        Labels by the model's file, in the order of its probabilities; none where it numbers them.
    outputs
        Number of classes; None for a regression, or where it is not known before it answers.
    categories
        Position of an input of text → its categories, in the order of the codes.
    blanks_replaced
        Whether its library has written `_` for each blank in the names of the inputs.
    bind
        Gives scores and graph for features in the model's order, for a task, with the position of the class that means
        true. Raises `ImportRefused` or ValueError with the reason.
    """

    library: str
    summary: str
    inputs: tuple[str, ...]
    width: int | None
    is_classifier: bool | None
    classes: tuple[Label, ...]
    outputs: int | None
    bind: Callable[[Task, Sequence[Feature], int], Bound]
    categories: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    native_name: str = "model"
    blanks_replaced: bool = False


@dataclass(frozen=True)
class Raw:
    """Raw scores in a graph: (rows,), or (rows × classes) for multiclass.

    Attributes
    ----------
    name
        Of the tensor.
    probabilities
        Whether they are probabilities and not log-odds.
    explanation
        What explains them, over the matrix `X`.
    unexplained
        Why nothing does.
    """

    name: str
    probabilities: bool = False
    explanation: Trees | Linear | None = None
    unexplained: str = ""


def finish(graph: Graph, raw: Raw, task: Task, *, width: int, outputs: int, positive: int) -> tuple[bytes, str]:
    """Write the graph; returns why its scores are not explained, too."""
    name, explanation, reason = raw.name, raw.explanation, raw.unexplained
    if task == "binary" and positive == 0:  # what the library gives is the probability of the other class
        explanation, reason = None, "the model's first class means true"
        one = graph.constant("one", 1.0)
        name = graph.add("Sub", [one, name], "of_first") if raw.probabilities else graph.add("Neg", [name], "of_first")
    content = graph.finish(
        name, task, width=width, outputs=outputs, probabilities=raw.probabilities, explanation=explanation
    )
    return content, reason


def scores_of(answers: np.ndarray, task: Task, positive: int) -> np.ndarray:
    """A library's answers as scores: of (rows × classes) the column that means true for binary."""
    answers = np.asarray(answers, dtype=np.float64)
    if task == "multiclass":
        return answers
    if task == "binary":
        if answers.ndim == 1:
            return answers if positive == 1 else 1.0 - answers
        return np.ascontiguousarray(answers[:, positive])
    return answers.reshape(len(answers))


def decoded(X: np.ndarray, features: Sequence[Feature], *, null: object = np.nan) -> "pd.DataFrame":
    """A matrix as rows that a library takes: numbers as float64, text as objects with `null` for a missing one."""
    import pandas as pd

    columns: dict[str, np.ndarray] = {}
    for position, feature in enumerate(features):
        values = X[:, position]
        if feature.categories is not None:
            texts = np.array([*feature.categories, UNSEEN, null], dtype=object)  # 0, 1, …, then -2 and -1 from the end
            unseen, missing = len(feature.categories), len(feature.categories) + 1
            codes = values.astype(np.int64)
            values = texts[np.where(values == MISSING_CODE, missing, np.where(codes < 0, unseen, codes))]
        columns[feature.name] = values
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})
