"""Leakage: finds features that give the label away, alone or as a combination of two, before a model learns them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl

from ml_platform.features.training_set import FeatureInfo
from ml_platform.spec import Leakage, Task
from ml_platform.spec_types import Strict

_BINS = 200  # quantiles of a numeric feature
_FEWEST_ROWS = 100  # with fewer rows nothing is judged
_FEWEST_OF_CLASS = 5  # fewer rows are separated by chance: a single one by one feature in a hundred
_FEWEST_APART = 10  # fewer rows of a value, or fewer without the commonest value, form ranges by chance
_PRIOR_ROWS = 2.0  # weight of the overall rate beside a bin's own rows
_FLAWLESS = 1e-6  # tolerance below an AUC or R² of one, at which a feature is the label itself
_EXACT = 1e-9  # share of the label's variance that rounding may leave in an exact equality
_PAIR_ROWS = 4000  # rows of a classification by which sums and differences are ranked
_SEED = 7

Floats = np.ndarray


class Leak(Strict):
    """One finding: features that predict the label, how, and how well."""

    features: tuple[str, ...]
    kind: Literal["alone", "transformation", "range", "combination"]
    measure: Literal["R²", "AUC"]
    value: float

    @property
    def reason(self) -> str:
        """The finding as a sentence."""
        names = " and ".join(f"'{name}'" for name in self.features)
        what = {
            "alone": f"{names} alone predicts the label",
            "transformation": f"{names} is the label in another form",
            "range": f"{names} says in which range the label lies",
            "combination": f"the sum or difference of {names}, each scaled, gives the label",
        }[self.kind]
        return f"{what} ({self.measure} {self.value:.4f})"


class LeakageReport(Strict):
    """The result of the search; `judged` is false when there are too few rows."""

    rows: int
    judged: bool
    leaks: tuple[Leak, ...]
    strength: dict[str, float]  # feature → R² or AUC of the feature alone, strongest first


def find_leakage(
    frame: pl.DataFrame, features: Sequence[FeatureInfo], *, target: str, task: Task, limits: Leakage | None = None
) -> LeakageReport:
    """Look for features that predict the label implausibly well.

    Single features are judged by how well the mean label per quantile or category of one half of the rows predicts the
    other half; so an identifier, which determines the label of its own row only, does not count. In addition:

    - numbers by their linear and rank correlation with a numeric label;
    - features with missing values also by only the rows in which they have a value;
    - features that say in which range a numeric label lies (for example above a threshold), which may explain little of
      its variance, by whether the order of the labels keeps their values together;
    - numbers computed from the label (its square, its distance from the mean), by how little they vary among rows with
      similar labels.

    Of two numeric features, every linear combination is compared with a numeric label; for classes, their sum and
    difference are ranked. With more than two classes the mean AUC counts, since one class may be easy to tell (the
    largest kind of bean by its size), unless one is told without any error. Infinite numbers count as missing.

    Parameters
    ----------
    frame
        Rows with known labels.
    features
        The columns that the model learns from.
    target
        Label column.
    task
        The model's task.
    limits
        From which score on a feature is implausible, and which features are known to be sound.

    Returns
    -------
    LeakageReport
        Findings, strongest first; a feature that is the label itself is not reported again in combinations.

    Examples
    --------
    >>> rides = pl.DataFrame({"casual": [n * 7 % 31 for n in range(200)], "registered": range(200)})
    >>> rides = rides.with_columns(rides=pl.col("casual") + pl.col("registered"))
    >>> infos = [FeatureInfo(name=name, kind="numeric", source="input") for name in ("casual", "registered")]
    >>> report = find_leakage(rides, infos, target="rides", task="regression", limits=Leakage(max_r2=0.999))
    >>> [leak.reason for leak in report.leaks]
    ["the sum or difference of 'casual' and 'registered', each scaled, gives the label (R² 1.0000)"]
    """
    limits = limits or Leakage()
    judged = [info for info in features if info.name not in limits.allow]
    rows = frame.filter(pl.col(target).is_not_null())
    if task == "regression":
        rows = rows.filter(pl.col(target).cast(pl.Float64).is_finite())
    # Shuffled, because the first rows stand for all below, and they may be sorted by the label.
    rows = rows.sample(min(rows.height, limits.sample_rows), shuffle=True, seed=_SEED)
    if rows.height < _FEWEST_ROWS:
        return LeakageReport(rows=rows.height, judged=False, leaks=(), strength={})
    labels = _labels(rows.get_column(target), task)
    measure: Literal["R²", "AUC"] = "R²" if task == "regression" else "AUC"
    limit = limits.max_r2 if task == "regression" else limits.max_auc
    strength: dict[str, float] = {}
    leaks: list[Leak] = []
    for info in judged:
        feature = rows.get_column(info.name)
        strength[info.name] = value = _alone(feature, labels, info.kind, task)
        if value >= limit:
            kind: Literal["alone", "transformation"] = "transformation" if value >= 1 - _FLAWLESS else "alone"
            leaks.append(Leak(features=(info.name,), kind=kind, measure=measure, value=value))
        elif task == "regression" and _tells_ranges(feature, labels[0]):
            leaks.append(Leak(features=(info.name,), kind="range", measure=measure, value=value))
        elif task == "regression" and info.kind == "numeric":
            value = _explained_by_label(_numbers(feature), labels[0])
            if value >= limit:
                leaks.append(Leak(features=(info.name,), kind="transformation", measure=measure, value=value))
    if limits.pairs:
        known = {leak.features[0] for leak in leaks if task != "regression" or leak.kind == "transformation"}
        numeric = [info.name for info in judged if info.kind == "numeric" and info.name not in known]
        found = _equal_pairs(rows, numeric, labels[0]) if task == "regression" else _ranked_pairs(rows, numeric, labels)
        bound = 1 - _EXACT if task == "regression" else limit
        leaks += [
            Leak(features=pair, kind="combination", measure=measure, value=value)
            for pair, value in found
            if value >= bound
        ]
    leaks.sort(key=lambda leak: (-leak.value, leak.features))
    ordered = dict(sorted(strength.items(), key=lambda item: (-item[1], item[0])))
    return LeakageReport(rows=rows.height, judged=True, leaks=tuple(leaks), strength=ordered)


def _labels(label: pl.Series, task: Task) -> list[Floats]:
    """The label as numbers: a number itself, or one 0/1 array per class (of two classes only one)."""
    if task == "regression":
        return [label.cast(pl.Float64).to_numpy()]
    classes = label.unique().sort().to_list()
    return [(label == value).cast(pl.Float64).to_numpy() for value in (classes[1:] if len(classes) == 2 else classes)]


def _alone(feature: pl.Series, labels: list[Floats], kind: str, task: Task) -> float:
    """How well a feature alone predicts the label, in all rows or in those in which it has a value."""
    whole = _predictive_power(feature, labels, kind, task)
    known = ~np.isnan(_numbers(feature)) if kind == "numeric" else feature.is_not_null().to_numpy()
    of_known = [label[known] for label in labels]
    if not _FEWEST_ROWS <= known.sum() < len(feature) or (task != "regression" and not _enough_of_each(of_known)):
        return whole
    return max(whole, _predictive_power(feature.filter(pl.Series(known)), of_known, kind, task))


def _enough_of_each(labels: list[Floats]) -> bool:
    return all(_FEWEST_OF_CLASS <= label.sum() <= len(label) - _FEWEST_OF_CLASS for label in labels)


def _predictive_power(feature: pl.Series, labels: list[Floats], kind: str, task: Task) -> float:
    """R² or AUC of a feature by its bins, or by its rank or linear correlation if that is better."""
    codes = _quantile_codes(_numbers(feature)) if kind == "numeric" else _category_codes(feature)
    predicted = [_out_of_fold(codes, label) for label in labels]
    ranks = None  # of a numeric feature without missing values
    if kind == "numeric" and not np.isnan(numbers := _numbers(feature)).any():
        ranks = _ranks(numbers)
    if task != "regression":
        best = _over_classes([_auc(scores, label) for scores, label in zip(predicted, labels, strict=True)], labels)
        if ranks is None or len(labels) > 1 or not _enough_of_each(labels):
            return best
        auc = _rank_auc(ranks, labels[0])
        return max(best, auc, 1.0 - auc)
    [label] = labels
    spread = float(np.sum((label - label.mean()) ** 2))
    if spread == 0.0:
        return 0.0
    best = max(1.0 - float(np.sum((label - predicted[0]) ** 2)) / spread, 0.0)
    if ranks is not None:
        best = max(best, _squared_correlation(numbers, label), _squared_correlation(ranks, _ranks(label)))
    return best


def _tells_ranges(feature: pl.Series, label: Floats) -> bool:
    """Whether sorting by the label puts the rows of each value next to each other, or those without a value."""
    chance = np.random.default_rng(_SEED).random(len(label))  # random order among equal labels
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


def _explained_by_label(numbers: Floats, label: Floats) -> float:
    """R² of a feature's ranks by their mean over similar labels: 1 for any function of the label."""
    known = ~np.isnan(numbers)
    if known.sum() < _FEWEST_ROWS:
        return 0.0
    ranks, label = _ranks(numbers[known]), label[known]
    codes = pl.Series(label).rank("dense").to_numpy().astype(np.int64)
    most = len(codes) // _FEWEST_APART  # with fewer rows per code, each would explain itself
    if codes.max() > most:
        codes = _quantile_codes(label, min(most, _BINS))
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=ranks) / np.maximum(counts, 1)
    unexplained = np.sum((ranks - means[codes]) ** 2) / max(len(ranks) - np.count_nonzero(counts), 1)
    spread = float(ranks.var(ddof=1))
    return 1.0 - float(unexplained) / spread if spread > 0 else 0.0


def _over_classes(aucs: Sequence[float], labels: list[Floats]) -> float:
    """Mean AUC of the classes, weighted by their shares; but the AUC of a class that is told without any error."""
    if not aucs or max(aucs) >= 1 - _FLAWLESS:
        return max(aucs, default=0.5)
    return float(np.average(aucs, weights=[label.mean() for label in labels]))


def _numbers(feature: pl.Series) -> Floats:
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
    half = np.random.default_rng(_SEED).random(len(label)) < 0.5
    predicted = np.empty(len(label))
    size = int(codes.max()) + 1
    for part in (half, ~half):
        overall = label[~part].mean() if (~part).any() else 0.0
        counts = np.bincount(codes[~part], minlength=size)
        sums = np.bincount(codes[~part], weights=label[~part], minlength=size)
        means = (sums + _PRIOR_ROWS * overall) / (counts + _PRIOR_ROWS)
        predicted[part] = means[codes[part]]
    return predicted


def _equal_pairs(rows: pl.DataFrame, names: Sequence[str], label: Floats) -> Iterator[tuple[tuple[str, str], float]]:
    """R² of the label on every two numeric features, over the rows in which both are known.

    It is computed from sums of products, so that all pairs cost a few matrix products. A pair that seems exact is then
    fitted on its rows, since sums lose digits.
    """
    if len(names) < 2:
        return
    values = np.column_stack([_numbers(rows.get_column(name)) for name in names])
    known = ~np.isnan(values)
    centred = np.where(known, values - np.nanmean(np.where(known.any(axis=0), values, 0.0), axis=0), 0.0)
    scale = np.sqrt((centred**2).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    x = centred / np.where(scale > 0, scale, 1.0)
    y = (label - label.mean()) / (label.std() or 1.0)
    mask = known.astype(float)
    n = np.maximum(mask.T @ mask, 1.0)
    mean_a, mean_y = (x.T @ mask) / n, ((mask * y[:, None]).T @ mask) / n  # [a, b]: over the rows of both
    cov_ay = ((x * y[:, None]).T @ mask) / n - mean_a * mean_y
    cov_ab = (x.T @ x) / n - mean_a * mean_a.T
    var_a = ((x**2).T @ mask) / n - mean_a**2
    var_y = ((mask * (y**2)[:, None]).T @ mask) / n - mean_y**2
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = var_a * var_a.T - cov_ab**2
        explained = (cov_ay**2 * var_a.T + cov_ay.T**2 * var_a - 2 * cov_ay * cov_ay.T * cov_ab) / determinant
        squared = np.where((determinant > 1e-9) & (n >= _FEWEST_ROWS) & (var_y > 0), explained / var_y, 0.0)
    for a, b in zip(*np.nonzero(np.triu(squared > 1 - 1e-5, k=1)), strict=True):
        both = known[:, a] & known[:, b]
        design = np.column_stack([x[both, a], x[both, b], np.ones(both.sum())])
        residual = y[both] - design @ np.linalg.lstsq(design, y[both], rcond=None)[0]
        yield (names[a], names[b]), 1.0 - float(residual.var() / y[both].var())


def _ranked_pairs(
    rows: pl.DataFrame, names: Sequence[str], labels: list[Floats]
) -> Iterator[tuple[tuple[str, str], float]]:
    """AUC of the sum or the difference of every two numeric features, whichever is better."""
    values = [_numbers(rows.get_column(name).head(_PAIR_ROWS)) for name in names]
    for a, first in enumerate(values):
        for b in range(a + 1, len(values)):
            best = 0.0
            for combined in (first + values[b], first - values[b]):
                known = ~np.isnan(combined)
                of_known = [label[:_PAIR_ROWS][known] for label in labels]
                if known.sum() >= _FEWEST_ROWS and (len(labels) > 1 or _enough_of_each(of_known)):
                    best = max(best, _combined_auc(combined[known], of_known))
            yield (names[a], names[b]), best


def _combined_auc(combined: Floats, labels: list[Floats]) -> float:
    """AUC of a number for two classes; for more, the lowest AUC of neighbouring classes in the order of their means."""
    classes = [label for label in ([1.0 - labels[0], *labels] if len(labels) == 1 else labels) if label.any()]
    ranks = _ranks(combined)
    classes.sort(key=lambda label: np.average(ranks, weights=label))
    aucs = []
    for lower, upper in pairwise(classes):
        either = lower + upper > 0
        aucs.append(_rank_auc(_ranks(ranks[either]), upper[either]))
    return min(aucs, default=0.5)


def _squared_correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    # Not by BLAS, whose threads wait for each other on a busy machine.
    product = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b) / product) ** 2 if product > 0 else 0.0


def _ranks(values: Floats) -> Floats:
    return pl.Series(values).rank("average").to_numpy()


def _auc(scores: Floats, label: Floats) -> float:
    return _rank_auc(_ranks(scores), label)


def _rank_auc(ranks: Floats, label: Floats) -> float:
    """Area under the ROC curve by the Mann–Whitney statistic; 0.5 when there is only one class."""
    positives = float(label.sum())
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        return 0.5
    return float((ranks[label == 1.0].sum() - positives * (positives + 1) / 2) / (positives * negatives))
