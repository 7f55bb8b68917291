"""Linear models of scikit-learn, over standardised numbers and one column for each category; exported in double."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.inference.explain import Linear
from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Feature
from ml_platform.spec.families import BUILT_IN, Parameter
from ml_platform.spec.types import Task
from ml_platform.training.export.onnx_linear import export_linear
from ml_platform.training.families.base import EstimatorFamily, Validation

if TYPE_CHECKING:
    import optuna
    from sklearn.pipeline import Pipeline


class LinearFamily(EstimatorFamily):
    """What the linear models share: a pipeline that imputes, scales and one-hot encodes before the model."""

    @abstractmethod
    def model(self, params: Mapping[str, Parameter], seed: int) -> Any:
        """Make the unfitted linear model."""

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> "Pipeline":  # noqa: ARG002
        """See `EstimatorFamily`."""
        from sklearn.pipeline import Pipeline

        return Pipeline([("columns", _columns(features)), ("model", self.model(params, seed))])

    def fit(
        self,
        estimator: Any,
        X: np.ndarray,
        y: np.ndarray,
        validation: Validation | None = None,  # noqa: ARG002
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,  # noqa: ARG002
    ) -> Any:
        """See `EstimatorFamily`."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):  # more threads would add numbers in another order
            return estimator.fit(X, y, **({} if weights is None else {"model__sample_weight": weights}))

    def importance(
        self,
        estimator: Any,
        task: Task,  # noqa: ARG002
        features: Sequence[Feature],
        X: np.ndarray,
    ) -> dict[str, float]:
        """See `EstimatorFamily`.

        The standard deviation, over the rows of `X`, of what the feature contributes to the score (the mean over
        classes).
        """
        columns = np.asarray(estimator.named_steps["columns"].transform(X))
        coefficients = np.atleast_2d(estimator.named_steps["model"].coef_)
        names = [feature.name for feature in features]
        numeric = [i for i, feature in enumerate(features) if feature.categories is None]
        categorical = [i for i, feature in enumerate(features) if feature.categories is not None]
        weights, start = dict.fromkeys(names, 0.0), 0
        for i in numeric + categorical:  # the order in which the column transformer puts them
            width = 1 if features[i].categories is None else len(category_codes(features[i]))
            part = slice(start, start + width)
            weights[names[i]] = float((columns[:, part] @ coefficients[:, part].T).std(axis=0).mean())
            start += width
        return weights

    def export(self, estimator: Any, task: Task, features: Sequence[Feature]) -> bytes:
        """See `EstimatorFamily`."""
        return export_linear(linear_of(estimator, task), task, len(features))


class LogisticRegressionFamily(LinearFamily):
    """Logistic regression; of several classes with one softmax over all."""

    info = BUILT_IN["logistic_regression"]

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {"C": 0.1}

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {"C": trial.suggest_float("C", 1e-3, 10.0, log=True)}

    def model(self, params: Mapping[str, Parameter], seed: int) -> Any:
        """See `LinearFamily`."""
        from sklearn.linear_model import LogisticRegression

        chosen: dict[str, Any] = dict(params)
        return LogisticRegression(max_iter=200, tol=1e-3, random_state=seed, **chosen)


class RidgeFamily(LinearFamily):
    """Ridge regression."""

    info = BUILT_IN["ridge"]

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {"alpha": 10.0}

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {"alpha": trial.suggest_float("alpha", 1e-1, 1e3, log=True)}

    def model(self, params: Mapping[str, Parameter], seed: int) -> Any:  # noqa: ARG002
        """See `LinearFamily`."""
        from sklearn.linear_model import Ridge

        chosen: dict[str, Any] = dict(params)
        return Ridge(**chosen)


class ElasticNetFamily(LinearFamily):
    """Elastic net, with `alpha` in units of the target's standard deviation, so that its unit does not matter."""

    info = BUILT_IN["elastic_net"]

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {"alpha": 0.001, "l1_ratio": 0.5}

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "alpha": trial.suggest_float("alpha", 1e-5, 0.3, log=True),
            "l1_ratio": trial.suggest_float("l1_ratio", 0.05, 1.0),
        }

    def model(self, params: Mapping[str, Parameter], seed: int) -> Any:
        """See `LinearFamily`."""
        from sklearn.linear_model import ElasticNet

        chosen: dict[str, Any] = dict(params)
        return ElasticNet(max_iter=2000, tol=1e-3, random_state=seed, **chosen)

    def fit(
        self,
        estimator: Any,
        X: np.ndarray,
        y: np.ndarray,
        validation: Validation | None = None,
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,  # noqa: ARG002
    ) -> Any:
        """See `EstimatorFamily`."""
        mean, scale = y.mean(), y.std() or 1.0
        super().fit(estimator, X, (y - mean) / scale, validation, weights=weights)
        model = estimator.named_steps["model"]
        model.coef_ = model.coef_ * scale
        model.intercept_ = model.intercept_ * scale + mean
        return estimator


def category_codes(feature: Feature) -> np.ndarray:
    """All codes of a categorical feature, from the smallest on."""
    return np.array([MISSING_CODE, UNSEEN_CODE, *range(len(feature.categories or ()))], dtype=np.float64)


def _columns(features: Sequence[Feature]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = [i for i, feature in enumerate(features) if feature.categories is None]
    categorical = [i for i, feature in enumerate(features) if feature.categories is not None]
    steps: list[tuple[str, Any, list[int]]] = []
    if numeric:
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("numeric", Pipeline([("impute", imputer), ("scale", StandardScaler())]), numeric))
    if categorical:
        codes = [category_codes(features[i]) for i in categorical]
        one_hot = OneHotEncoder(categories=codes, handle_unknown="ignore", sparse_output=False)
        steps.append(("categorical", one_hot, categorical))
    return ColumnTransformer(steps)


def linear_of(estimator: "Pipeline", task: Task) -> Linear:
    """Read a fitted pipeline's weights.

    A multiclass model of two classes has one raw score, of the second class against the first. Here each class has half
    of it, with its own sign, whose softmax is the same: one raw score per class, as with more classes.
    """
    model = estimator.named_steps["model"]
    coefficients, intercept = np.atleast_2d(model.coef_).astype(float), np.atleast_1d(model.intercept_).astype(float)
    if task == "multiclass" and len(intercept) == 1:
        halves = np.array([[-0.5], [0.5]])
        coefficients, intercept = halves * coefficients, halves[:, 0] * intercept
    found = Linear(
        intercept=intercept.tolist(),
        numeric=[],
        fill=[],
        mean=[],
        scale=[],
        numeric_coefficients=[[] for _ in coefficients],
        categorical=[],
        codes=[],
        categorical_coefficients=[[] for _ in coefficients],
    )
    start = 0
    for name, transformer, positions in estimator.named_steps["columns"].transformers_:
        if name == "numeric":
            imputer, scaler = transformer.named_steps["impute"], transformer.named_steps["scale"]
            found.numeric = [int(position) for position in positions]
            found.fill = np.nan_to_num(imputer.statistics_, nan=0.0).tolist()
            found.mean, found.scale = scaler.mean_.tolist(), scaler.scale_.tolist()
            found.numeric_coefficients = coefficients[:, start : start + len(positions)].tolist()
            start += len(positions)
        elif name == "categorical":
            found.categorical = [int(position) for position in positions]
            found.codes = [codes.tolist() for codes in transformer.categories_]
            for codes in found.codes:
                for target, row in zip(found.categorical_coefficients, coefficients, strict=True):
                    target.append(row[start : start + len(codes)].tolist())
                start += len(codes)
    return found
