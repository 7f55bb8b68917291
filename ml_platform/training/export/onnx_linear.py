"""Linear models → ONNX in double precision, written from their weights.

The stock converters impute and scale in float32, in which epoch seconds, eight-digit ids, dates as yyyymmdd and pascals
are rounded before their mean is taken away: what is left of them is noise. Here numbers stay doubles from end to end.
"""

import numpy as np

from ml_platform.inference.explain import Linear
from ml_platform.spec.types import Task
from ml_platform.training.export.graph import Graph


def export_linear(model: Linear, task: Task, width: int) -> bytes:
    """Write a linear model as a graph, as `ml_platform.inference.explain` explains it.

    Parameters
    ----------
    model
        Its raw scores are log-odds, of each class for multiclass, or the value.
    task
        Kind of model.
    width
        Number of features.
    """
    graph, outputs = Graph(), len(model.intercept)
    raw = add_linear(graph, model, alone=outputs == 1)
    return graph.finish(raw, task, width=width, outputs=outputs, probabilities=False, explanation=model)


def add_linear(graph: Graph, model: Linear, *, alone: bool) -> str:
    """Add the raw scores of a matrix `X`: (rows,) if there is one `alone`, else (rows × targets).

    Numbers are imputed, centred and weighed (weights already divided by the scale); codes of categories, which are
    whole numbers from the smallest code on, pick their weights from one table.
    """
    parts = []
    if model.numeric:
        parts.append(_numeric(graph, model, alone=alone))
    if model.categorical:
        parts.append(_categorical(graph, model, alone=alone))
    else:
        parts.append(graph.constant("intercept", model.intercept[0] if alone else model.intercept))
    return graph.add("Add", parts, "linear") if len(parts) > 1 else parts[0]


def _numeric(graph: Graph, model: Linear, *, alone: bool) -> str:
    """Weighted sum of the numbers; other columns have weight 0, which is cheaper than to leave them out."""
    width = 1 + max([*model.numeric, *model.categorical])
    fill, mean, weights = np.zeros(width), np.zeros(width), np.zeros((width, len(model.intercept)))
    fill[model.numeric], mean[model.numeric] = model.fill, model.mean
    weights[model.numeric] = (np.array(model.numeric_coefficients) / np.array(model.scale)).T
    missing = graph.add("IsNaN", ["X"], "missing")
    filled = graph.add("Where", [missing, graph.constant("fill", fill), "X"], "filled")
    centred = graph.add("Sub", [filled, graph.constant("mean", mean)], "centred")
    weighed = graph.constant("numeric_weights", weights[:, 0] if alone else weights)
    return graph.add("MatMul", [centred, weighed], "of_numbers")


def _categorical(graph: Graph, model: Linear, *, alone: bool) -> str:
    """Sum of the weights of the categories, and the intercept, which is in those of the first feature."""
    by_feature = zip(*model.categorical_coefficients, strict=True)
    tables = [np.array(targets).T for targets in by_feature]  # codes × targets
    tables[0] = tables[0] + model.intercept
    starts = np.cumsum([0, *map(len, model.codes[:-1])]) - [codes[0] for codes in model.codes]
    table = np.concatenate(tables)
    weights = graph.constant("categorical_weights", table[:, 0] if alone else table)
    codes = graph.add("Gather", ["X", graph.constant("categorical", model.categorical, np.int64)], "codes", axis=1)
    whole = graph.add("Cast", [codes], "whole_codes", to=7)  # int64
    places = graph.add("Add", [whole, graph.constant("starts", starts, np.int64)], "places")
    picked = graph.add("Gather", [weights, places], "picked", axis=0)
    return graph.add("ReduceSum", [picked, graph.constant("features", [1], np.int64)], "of_categories", keepdims=0)
