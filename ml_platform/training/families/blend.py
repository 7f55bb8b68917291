"""A weighted average of fixed trials, of one family or several, that is trained, exported and served as one model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import Parameter
from ml_platform.spec.types import Task
from ml_platform.training.export.blended_graph import blend_graphs
from ml_platform.training.families.base import EstimatorFamily, Validation
from ml_platform.training.families.registry import get_family

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class BlendMember:
    """One estimator of a blend.

    Attributes
    ----------
    family
        Name of its family.
    params
        Fixed parameters, the number of rounds included.
    weight
        Share of its score in the blend's; the weights of all members add up to 1.
    """

    family: str
    params: Mapping[str, Parameter]
    weight: float = 1.0


@dataclass
class Blend:
    """The estimators of a blend, each with its family and weight.

    With a target on the scale of logarithms, predictions are from 0 to `limit`, which is twice the largest label: far
    from the training rows a linear model would answer with astronomical numbers.
    """

    parts: list[tuple[EstimatorFamily, Any, float]]
    limit: float | None = None


class BlendFamily(EstimatorFamily):
    """A family without anything to tune: a subclass names its members, and one with a single member fixes a trial.

    Attributes
    ----------
    members
        What is averaged.
    log_target
        Regression: whether members learn log(1 + value), of values from 0 on. The blend predicts the value.
    """

    members: ClassVar[tuple[BlendMember, ...]]
    log_target: ClassVar[bool] = False

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`; there are none."""
        return {}

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`; there is nothing to draw."""
        return {}

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Blend:  # noqa: ARG002
        """See `EstimatorFamily`."""
        parts = []
        for member in self.members:
            family = get_family(member.family)
            parts.append((family, family.build(task, features, member.params, seed), member.weight))
        return Blend(parts)

    def fit(
        self,
        estimator: Blend,
        X: np.ndarray,
        y: np.ndarray,
        validation: Validation | None = None,  # noqa: ARG002
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,  # noqa: ARG002
    ) -> Blend:
        """See `EstimatorFamily`; members are fitted with the rounds that they name, so nothing stops them early.

        Raises
        ------
        ValueError
            With `log_target`, when a label is negative.
        """
        if self.log_target and (y < 0).any():
            raise ValueError(f"family '{self.info.name}' learns log(1 + value): wanted labels from 0 on")
        limit = 2.0 * float(y.max()) if self.log_target else None
        y = np.log1p(y) if self.log_target else y
        parts = [
            (family, family.fit(part, X, y) if weights is None else family.fit(part, X, y, weights=weights), share)
            for family, part, share in estimator.parts
        ]
        return Blend(parts, limit)

    def predict(self, estimator: Blend, task: Task, X: np.ndarray) -> np.ndarray:
        """See `EstimatorFamily`."""
        score = np.asarray(sum(weight * family.predict(part, task, X) for family, part, weight in estimator.parts))
        if estimator.limit is None:
            return score
        with np.errstate(over="ignore"):
            return np.clip(np.expm1(score), 0.0, estimator.limit)

    def export(self, estimator: Blend, task: Task, features: Sequence[Feature]) -> bytes:
        """See `EstimatorFamily`; several members, or a transformed target, are not explained."""
        graphs = [(family.export(part, task, features), weight) for family, part, weight in estimator.parts]
        return blend_graphs(graphs, largest=estimator.limit)
