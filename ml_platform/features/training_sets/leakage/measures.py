"""How well one feature predicts a label: R² or AUC by bins fitted on the other half of the rows, by rank, by line."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ml_platform.spec.types import Task

FEWEST_ROWS = 100  # with fewer rows nothing is judged
FLAWLESS = 1e-6  # tolerance below an AUC or R² of one, at which a feature is the label itself
SEED = 7
_BINS = 200  # quantiles of a numeric feature
_FEWEST_OF_CLASS = 5  # fewer rows are separated by chance: a single one by one feature in a hundred
_FEWEST_APART = 10  # fewer rows of a value, or fewer without the commonest value, form ranges by chance
_PRIOR_ROWS = 2.0  # weight of the overall rate beside a bin's own rows

Floats = np.ndarray


def label_arrays(label: pl.Series, task: Task) -> list[Floats]:
    """The label as numbers: a number itself, or one 0/1 array per class (of two classes only one)."""
    if task == "regression":
        return [label.cast(pl.Float64).to_numpy()]
    classes = label.unique().sort().to_list()
    return [(label == value).cast(pl.Float64).to_numpy() for value in (classes[1:] if len(classes) == 2 else classes)]


def alone(feature: pl.Series, labels: list[Floats], kind: str, task: Task) -> float:
    """How well a feature alone predicts the label, in all rows or in those in which it has a value."""
    whole = _predictive_power(feature, labels, kind, task)
    known = ~np.isnan(numbers_of(feature)) if kind == "numeric" else feature.is_not_null().to_numpy()
    of_known = [label[known] for label in labels]
    if not FEWEST_ROWS <= known.sum() < len(feature) or (task != "regression" and not enough_of_each(of_known)):
        return whole
    return max(whole, _predictive_power(feature.filter(pl.Series(known)), of_known, kind, task))


def enough_of_each(labels: list[Floats]) -> bool:
    """Whether every class, and what is not of it, has enough rows to be told by more than chance."""
    return all(_FEWEST_OF_CLASS <= label.sum() <= len(label) - _FEWEST_OF_CLASS for label in labels)


def _predictive_power(feature: pl.Series, labels: list[Floats], kind: str, task: Task) -> float:
    """R² or AUC of a feature by its bins, or by its rank or linear correlation if that is better."""
    codes = _quantile_codes(numbers_of(feature)) if kind == "numeric" else _category_codes(feature)
    predicted = [_out_of_fold(codes, label) for label in labels]
    ranks = None  # of a numeric feature without missing values
    if kind == "numeric" and not np.isnan(numbers := numbers_of(feature)).any():
        ranks = ranks_of(numbers)
    if task != "regression":
        best = over_classes([label_auc(scores, label) for scores, label in zip(predicted, labels, strict=True)], labels)
        if ranks is None or len(labels) > 1 or not enough_of_each(labels):
            return best
        auc = rank_auc(ranks, labels[0])
        return max(best, auc, 1.0 - auc)
    [label] = labels
    spread = float(np.sum((label - label.mean()) ** 2))
    if spread == 0.0:
        return 0.0
    best = max(1.0 - float(np.sum((label - predicted[0]) ** 2)) / spread, 0.0)
    if ranks is not None:
        best = max(best, squared_correlation(numbers, label), squared_correlation(ranks, ranks_of(label)))
    return best


def tells_ranges(feature: pl.Series, label: Floats) -> bool:
    """Whether sorting by the label puts the rows of each value next to each other, or those without a value."""
    chance = np.random.default_rng(SEED).random(len(label))  # random order among equal labels
    order = np.lexsort((chance, label))
    for values in (feature, feature.is_null()):
        codes = values.rank("dense").fill_null(0).to_numpy().astype(np.int64)[order]
        counts = np.unique_counts(codes).counts
        runs = 1 + np.count_nonzero(np.diff(codes))
        # Rare values do not count: a value of a single row is always next to itself.
        in_ranges = counts[counts >= _FEWEST_APART].sum()
        if runs == len(counts) and len(codes) - counts.max() >= _FEWEST_APART and in_ranges > len(codes) / 2:
            return True
    return False


def explained_by_label(numbers: Floats, label: Floats) -> float:
    """R² of a feature's ranks by their mean over similar labels: 1 for any function of the label."""
    known = ~np.isnan(numbers)
    if known.sum() < FEWEST_ROWS:
        return 0.0
    ranks, label = ranks_of(numbers[known]), label[known]
    codes = pl.Series(label).rank("dense").to_numpy().astype(np.int64)
    most = len(codes) // _FEWEST_APART  # with fewer rows per code, each would explain itself
    if codes.max() > most:
        codes = _quantile_codes(label, min(most, _BINS))
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=ranks) / np.maximum(counts, 1)
    unexplained = np.sum((ranks - means[codes]) ** 2) / max(len(ranks) - np.count_nonzero(counts), 1)
    spread = float(ranks.var(ddof=1))
    return 1.0 - float(unexplained) / spread if spread > 0 else 0.0


def over_classes(aucs: Sequence[float], labels: list[Floats]) -> float:
    """Mean AUC of the classes, weighted by their shares; but the AUC of a class that is told without any error."""
    if not aucs or max(aucs) >= 1 - FLAWLESS:
        return max(aucs, default=0.5)
    return float(np.average(aucs, weights=[label.mean() for label in labels]))


def numbers_of(feature: pl.Series) -> Floats:
    """A numeric feature as float64, missing and infinite values as NaN."""
    numbers = feature.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _quantile_codes(numbers: Floats, bins: int = _BINS) -> np.ndarray:
    """Number of the quantile of each value; nulls have one of their own."""
    known = numbers[~np.isnan(numbers)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if known.size else np.empty(0)
    return np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers, side="left"))


def _category_codes(feature: pl.Series) -> np.ndarray:
    return feature.cast(pl.String).fill_null("").rank("dense").to_numpy().astype(np.int64)


def _out_of_fold(codes: np.ndarray, label: Floats) -> Floats:
    """Mean label of each row's bin in the other half of the rows, shrunk to the overall mean when the bin is small."""
    half = np.random.default_rng(SEED).random(len(label)) < 0.5
    predicted = np.empty(len(label))
    size = int(codes.max()) + 1
    for part in (half, ~half):
        overall = label[~part].mean() if (~part).any() else 0.0
        counts = np.bincount(codes[~part], minlength=size)
        sums = np.bincount(codes[~part], weights=label[~part], minlength=size)
        means = (sums + _PRIOR_ROWS * overall) / (counts + _PRIOR_ROWS)
        predicted[part] = means[codes[part]]
    return predicted


def squared_correlation(a: Floats, b: Floats) -> float:
    """R² of a line through two arrays without missing values; 0 when one is constant."""
    a, b = a - a.mean(), b - b.mean()
    # Not by BLAS, whose threads wait for each other on a busy machine.
    product = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b) / product) ** 2 if product > 0 else 0.0


def ranks_of(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing their mean rank."""
    return pl.Series(values).rank("average").to_numpy()


def label_auc(scores: Floats, label: Floats) -> float:
    """Area under the ROC curve of scores for a 0/1 label."""
    return rank_auc(ranks_of(scores), label)


def rank_auc(ranks: Floats, label: Floats) -> float:
    """Area under the ROC curve by the Mann–Whitney statistic; 0.5 when there is only one class."""
    positives = float(label.sum())
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        return 0.5
    return float((ranks[label == 1.0].sum() - positives * (positives + 1) / 2) / (positives * negatives))
