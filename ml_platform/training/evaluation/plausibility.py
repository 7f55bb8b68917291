"""Whether a model is too good to be true: by itself, beside its champion, or for a feature that may know the label."""

from collections.abc import Mapping

from ml_platform.spec.model import LOWER_IS_BETTER, ModelSpec
from ml_platform.training.documents import Evaluation, TrainedModel

TOO_GOOD = 0.98  # of what the naive baseline leaves to be gained
TOO_SUDDEN = 0.5  # of what the champion leaves to be gained, in one version


def implausible(spec: ModelSpec, trained: TrainedModel, evaluation: Evaluation) -> tuple[str, ...]:
    """Give the reasons for which a person should look before this model decides anything.

    Parameters
    ----------
    spec
        The model: its metric.
    trained
        What was trained; its training set says which features may know the label.
    evaluation
        Its metrics on rows that it never saw, beside the naive baseline's and the champion's.

    Returns
    -------
    tuple[str, ...]
        One sentence each; empty when nothing is striking. A model that gains nearly all that the naive baseline leaves,
        or half of what the champion leaves at once, is striking, as is a feature found suspect in the training set.
    """
    metric, value = spec.metric, evaluation.challenger.get(spec.metric)
    reasons = [
        f"{finding}; is that known at the instant of the prediction?" for finding in trained.training_set.suspects
    ]
    naive, champion = evaluation.naive.get(metric), (evaluation.champion or {}).get(metric)
    if value is not None and naive is not None and (share := _share_gained(metric, value, naive)) >= TOO_GOOD:
        reasons.insert(0, f"{metric} {value:.4f} gains {share:.1%} of what the naive baseline ({naive:.4f}) leaves")
    if value is not None and champion is not None and (share := _share_gained(metric, value, champion)) >= TOO_SUDDEN:
        reasons.insert(0, f"{metric} {value:.4f} gains {share:.0%} of what the champion ({champion:.4f}) left, at once")
    return tuple(reasons)


def strongest_features(trained: TrainedModel, most: int = 10) -> list[Mapping[str, object]]:
    """Features that predict best alone or weigh most: rows of a table with `alone` (R² or AUC) and `importance`."""
    strength, importance = trained.training_set.strength, trained.importance
    names = sorted({*list(strength)[:most], *list(importance)[:most]}, key=lambda name: -strength.get(name, 0.0))
    return [{"feature": name, "alone": strength.get(name), "importance": importance.get(name, 0.0)} for name in names]


def _share_gained(metric: str, value: float, reference: float) -> float:
    """Share of the way from the reference to a perfect model."""
    perfect = 0.0 if metric in LOWER_IS_BETTER else 1.0
    left = abs(perfect - reference)
    return 0.0 if left == 0 else 1.0 - abs(perfect - value) / left
