"""What an explainer of scores gives, whatever the kind of model."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Explanations:
    """Contributions to the raw scores: `base[t] + contributions[row, t].sum()` is the raw score of a row and target."""

    base: np.ndarray  # (targets,)
    contributions: np.ndarray  # (rows × targets × features)


class Explainer(Protocol):
    """Explains rows of a model's matrix."""

    @property
    def method(self) -> str:
        """Name of the method."""
        ...

    @property
    def probabilities(self) -> bool:
        """Whether the raw scores of a classifier are probabilities, and not log-odds."""
        ...

    def explain(self, matrix: np.ndarray) -> Explanations:
        """Explain every row of a matrix (rows × features, float64)."""
        ...
