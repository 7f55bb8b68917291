"""A perceptron that PyTorch learns."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ml_platform.automl.plain.perceptron import answers, first_weights, learn_inputs, split_inputs


def fit_torch(
    X: np.ndarray, y: np.ndarray, categories: list[int | None], *, task: str, seed: int, params: dict[str, Any]
) -> Callable[[np.ndarray], np.ndarray]:
    """Learn a perceptron with PyTorch and return what scores rows; on one thread, more would add in another order."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    mean, scale = (float(y.mean()), float(y.std()) or 1.0) if task == "regression" else (0.0, 1.0)
    inputs, random = learn_inputs(X, categories), np.random.default_rng(seed)
    numbers, places = split_inputs(X, inputs)
    targets, outputs = (y - mean) / scale, int(y.max()) + 1 if task == "multiclass" else 1
    drawn = first_weights(inputs, params["hidden"], params["layers"], outputs, random)
    weights = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in drawn]
    optimiser = torch.optim.AdamW(weights, lr=params["learning_rate"], weight_decay=params["weight_decay"])

    def forward(numbers: Any, places: Any) -> Any:
        raw = numbers @ weights[0] + weights[1][places].sum(dim=1) + weights[2]
        for matrix, offset in zip(weights[3::2], weights[4::2], strict=True):
            raw = raw.relu() @ matrix + offset
        return raw

    for _ in range(params["epochs"]):
        order = random.permutation(len(X))
        for start in range(0, len(X), params["batch_size"]):
            batch = order[start : start + params["batch_size"]]
            optimiser.zero_grad()
            raw, wanted = forward(torch.from_numpy(numbers[batch]), torch.from_numpy(places[batch])), targets[batch]
            if task == "multiclass":
                losses = functional.cross_entropy(raw, torch.from_numpy(wanted).long(), reduction="none")
            elif task == "binary":
                known = torch.from_numpy(wanted)
                losses = functional.binary_cross_entropy_with_logits(raw[:, 0], known, reduction="none")
            else:
                losses = (torch.from_numpy(wanted) - raw[:, 0]).square()
            losses.mean().backward()
            optimiser.step()

    def predict(X: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            raw = forward(*(torch.from_numpy(one) for one in split_inputs(X, inputs))).numpy()
        return answers(raw, task, mean, scale)

    return predict
