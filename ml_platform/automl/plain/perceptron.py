"""A perceptron with rectified hidden layers, in double precision: its inputs, its first weights, its answers."""

from typing import Any

import numpy as np


def learn_inputs(X: np.ndarray, categories: list[int | None]) -> dict[str, Any]:
    """Learn how columns become inputs; `categories` is each column's number of categories, None for a number.

    A missing number is the median, beside a second input that says so; all are standardised. Each category is a row of
    one table, in which every column also has a row for missing and one for unseen.
    """
    numeric = [place for place, count in enumerate(categories) if count is None]
    coded = [place for place, count in enumerate(categories) if count is not None]
    widths = [2 + (count or 0) for count in categories if count is not None]
    numbers = X[:, numeric]
    known = ~np.isnan(numbers)
    medians = [
        np.median(column[there]) if there.any() else 0.0 for column, there in zip(numbers.T, known.T, strict=True)
    ]
    filled = np.where(known, numbers, np.array(medians))
    mean, deviation = filled.mean(axis=0), filled.std(axis=0)
    return {
        "numeric": numeric,
        "fill": np.array(medians),
        "mean": mean,
        "scale": np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0),
        "missing": np.flatnonzero(~known.all(axis=0) & known.any(axis=0)),
        "coded": coded,
        "starts": np.array([2 + sum(widths[:place]) for place in range(len(widths))], dtype=np.int64),
        "table": sum(widths),
    }


def split_inputs(X: np.ndarray, inputs: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Turn rows into numbers, clipped at ten standard deviations, and into rows of the table."""
    numbers = X[:, inputs["numeric"]]
    null = np.isnan(numbers)
    scaled = (np.where(null, inputs["fill"], numbers) - inputs["mean"]) / inputs["scale"]
    places = X[:, inputs["coded"]].astype(np.int64) + inputs["starts"]
    return np.hstack([np.clip(scaled, -10.0, 10.0), null[:, inputs["missing"]]]), places


def first_weights(
    inputs: dict[str, Any], hidden: int, layers: int, outputs: int, random: np.random.Generator
) -> list[np.ndarray]:
    """Draw the weights before learning, uniformly by the number of inputs (He et al., 2015)."""
    numbers = len(inputs["numeric"]) + len(inputs["missing"])

    def drawn(rows: int, columns: int, incoming: int) -> np.ndarray:
        limit = np.sqrt(6.0 / incoming)
        return random.uniform(-limit, limit, (rows, columns))

    incoming = max(1, numbers + len(inputs["coded"]))
    weights = [drawn(numbers, hidden, incoming), drawn(inputs["table"], hidden, incoming), np.zeros(hidden)]
    for _ in range(layers - 1):
        weights += [drawn(hidden, hidden, hidden), np.zeros(hidden)]
    return [*weights, drawn(hidden, outputs, 6 * hidden), np.zeros(outputs)]


def answers(raw: np.ndarray, task: str, mean: float, scale: float) -> np.ndarray:
    """Turn outputs into probabilities, or into values of the target."""
    if task == "multiclass":
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return shares
    value: np.ndarray = raw[:, 0]
    return value * scale + mean if task == "regression" else np.exp(-np.logaddexp(0.0, -value))
