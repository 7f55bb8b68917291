"""A multilayer perceptron that PyTorch learns, on one thread: more would add gradients in another order."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_platform.spec.families import BUILT_IN
from ml_platform.training.families.mlp import MlpFamily, Perceptron, Weights


@dataclass
class _Network:
    weights: list[Any]  # tensors, as `Weights`
    optimiser: Any


class TorchMlpFamily(MlpFamily):
    """See `MlpFamily`."""

    info = BUILT_IN["torch_mlp"]

    def make_network(self, perceptron: Perceptron, weights: Weights) -> _Network:
        """See `MlpFamily`."""
        import torch

        tensors = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in weights]
        params = perceptron.params
        optimiser = torch.optim.AdamW(tensors, lr=params["learning_rate"], weight_decay=params["weight_decay"])
        return _Network(tensors, optimiser)

    def run_epoch(
        self, perceptron: Perceptron, numbers: np.ndarray, places: np.ndarray, y: np.ndarray, weights: np.ndarray | None
    ) -> None:
        """See `MlpFamily`."""
        import torch

        network, size = perceptron.network, int(perceptron.params["batch_size"])
        with _one_thread():
            for start in range(0, len(y), size):
                batch = slice(start, start + size)
                network.optimiser.zero_grad()
                raw = _forward(network.weights, torch.from_numpy(numbers[batch]), torch.from_numpy(places[batch]))
                losses = _losses(perceptron, raw, torch.from_numpy(y[batch]))
                if weights is not None:
                    losses = losses * torch.from_numpy(weights[batch])
                losses.mean().backward()
                network.optimiser.step()

    def outputs(self, network: _Network, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """See `MlpFamily`."""
        import torch

        with torch.no_grad(), _one_thread():
            found: np.ndarray = _forward(network.weights, torch.from_numpy(numbers), torch.from_numpy(places)).numpy()
        return found

    def weights(self, network: _Network) -> Weights:
        """See `MlpFamily`."""
        return [one.detach().numpy().copy() for one in network.weights]

    def set_weights(self, network: _Network, weights: Weights) -> None:
        """See `MlpFamily`."""
        import torch

        with torch.no_grad():
            for tensor, values in zip(network.weights, weights, strict=True):
                tensor.copy_(torch.from_numpy(values))

    def native_files(self, estimator: Perceptron) -> dict[str, bytes]:
        """See `EstimatorFamily`: the weights as NumPy arrays, since PyTorch's own files are pickles."""
        content = io.BytesIO()
        np.savez(content, *self.weights(estimator.network))
        return {"weights.npz": content.getvalue()}


def _forward(weights: list[Any], numbers: Any, places: Any) -> Any:
    of_numbers, table, bias, *rest = weights
    raw = numbers @ of_numbers + table[places].sum(dim=1) + bias
    for matrix, offset in zip(rest[::2], rest[1::2], strict=True):
        raw = raw.relu() @ matrix + offset
    return raw


def _losses(perceptron: Perceptron, raw: Any, y: Any) -> Any:
    """Loss of each row (rows,)."""
    from torch.nn import functional

    if perceptron.task == "multiclass":
        return functional.cross_entropy(raw, y.long(), reduction="none")
    if perceptron.task == "binary":
        return functional.binary_cross_entropy_with_logits(raw[:, 0], y, reduction="none")
    residual = y - raw[:, 0]
    if (quantile := perceptron.quantile) is not None:
        return (quantile * residual).maximum((quantile - 1) * residual)
    return residual.square()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread, as long as this lasts."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
