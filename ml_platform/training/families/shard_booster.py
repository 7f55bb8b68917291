"""What a family has whose model several workers train together: one library's own collective, over Ray Train."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ml_platform.spec.types import Task

RowsWithLabels = tuple[np.ndarray, np.ndarray]
AfterRound = Callable[[Callable[[], bytes], float | None], bool]
"""Called after each round with what gives the model so far, and the loss on validation rows; true ends the fit."""


class ShardBooster(ABC):
    """Trains one model of boosted rounds over workers that each hold a part of the rows.

    Its methods run on workers, inside the training function of `trainer`, but for `trainer` and `load`.

    Attributes
    ----------
    dtype
        Of the matrix that `boost` takes.
    """

    dtype: ClassVar[type[np.floating[Any]]] = np.float64

    @abstractmethod
    def trainer(self) -> Any:
        """Give Ray Train's class of trainer that connects the workers."""

    @abstractmethod
    def native_params(self, estimator: Any, task: Task, classes: int) -> dict[str, Any]:
        """Parameters of the library itself for an estimator of `EstimatorFamily.build`, without the number of rounds.

        `classes` is the number of classes of a classifier.
        """

    @abstractmethod
    def prepare(self, X: np.ndarray) -> np.ndarray:
        """Bring a part of the matrix (float64) to the values that the library reads, as `dtype`."""

    @abstractmethod
    def boost(
        self,
        params: Mapping[str, Any],
        X: np.ndarray,
        y: np.ndarray,
        validation: RowsWithLabels | None = None,
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,
        rounds: int,
        threads: int,
        model: bytes | None = None,
        after_round: AfterRound,
    ) -> bytes:
        """Boost together with the other workers, and return the model, which is the same on all.

        Parameters
        ----------
        params
            Of `native_params`.
        X, y
            This worker's rows × features (`dtype`), and their labels.
        validation
            Rows whose loss `after_round` is told; the same on all workers.
        weights, validation_weights
            Of this worker's rows and of the validation rows; None for one each.
        rounds
            How many are wanted, those of `model` included.
        threads
            Of this worker.
        model
            To go on with.
        after_round
            Called on all workers after each round.
        """

    @abstractmethod
    def load(self, model: bytes, estimator: Any, task: Task, curve: Sequence[float]) -> Any:
        """Make a fitted estimator of the model, as those of the family's `fit` are, with its learning curve.

        `estimator` is one of `EstimatorFamily.build`, with the number of rounds.
        """
