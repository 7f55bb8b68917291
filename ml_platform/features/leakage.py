"""Leakage: features that know the label, alone or as the sum or difference of two, found before a model learns them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl

from ml_platform.features.training_set import FeatureInfo
from ml_platform.spec import Leakage, Strict, Task

_BINS = 200  # quantiles that a numeric feature is cut into
_FEWEST_ROWS = 100  # below this nothing is judged
_FEWEST_OF_CLASS = 5  # fewer rows are told from all others by chance: by one in a hundred features, if it is one row
_FEWEST_APART = 10  # rows of one value, and rows without the commonest, from which a feature's ranges are no chance
_PRIOR_ROWS = 2.0  # weight of the overall rate beside a bin's own rows
_FLAWLESS = 1e-6  # from an AUC or R² of one, for what is the label itself
_EXACT = 1e-9  # share of the label's variance that an equality may leave, for the rounding of doubles
_PAIR_ROWS = 4000  # of a classification's rows, by which sums and differences are ranked
_SEED = 7

Floats = np.ndarray


class Leak(Strict):
    """One finding: features that know the label, how well, and by what."""

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
    """What the search came to; `judged` is false where there are too few rows for a verdict."""

    rows: int
    judged: bool
    leaks: tuple[Leak, ...]
    strength: dict[str, float]  # feature → R² or AUC of the feature alone, strongest first


def find_leakage(
    frame: pl.DataFrame, features: Sequence[FeatureInfo], *, target: str, task: Task, limits: Leakage | None = None
) -> LeakageReport:
    """Look for features that predict the label implausibly well.

    A feature alone is judged by predicting the one half of the rows from the other half's mean label per quantile or
    category, so that an identifier, which determines the label of its own row only, does not count; numbers also by
    their linear and rank correlation with a numeric label; a feature with gaps once more by the rows without. One that
    says in which range a numeric label lies (whether it is above a threshold) may explain little of it, and is found by
    the order of the labels; so may a number that the label folds into (its square, its distance from the mean): it is
    found by what like labels have in common. Infinite numbers are read as missing. Of two numeric features every linear
    combination is compared with a numeric label, and sum and difference ranked against the classes. Of several classes
    the mean AUC counts, since one may well stand apart (the largest kind of bean by its size), unless one is told
    without any error.

    Parameters
    ----------
    frame
        Rows with known labels.
    features
        The columns that the model learns from.
    target
        Label column.
    task
        Says how the label is read.
    limits
        What is implausible, and which features are known to be sound.

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
    # Shuffled, since the first of them are taken for all: they may be sorted by the label.
    rows = rows.sample(min(rows.height, limits.sample_rows), shuffle=True, seed=_SEED)
    if rows.height < _FEWEST_ROWS:
        return LeakageReport(rows=rows.height, judged=False, leaks=(), strength={})
    labels = _labels(rows.get_column(target), task)
    measure: Literal["R²", "AUC"] = "R²" if task == "regression" else "AUC"
    limit = limits.max_r2 if task == "regression" else limits.max_auc
    strength: dict[str, float] = {}
    leaks: list[Leak] = []
    for info in judged:
        strength[info.name] = value = _alone(rows.get_column(info.name), labels, info.kind, task)
        if value >= limit:
            kind: Literal["alone", "transformation"] = "transformation" if value >= 1 - _FLAWLESS else "alone"
            leaks.append(Leak(features=(info.name,), kind=kind, measure=measure, value=value))
        elif task == "regression" and _tells_ranges(rows.get_column(info.name), labels[0]):
            leaks.append(Leak(features=(info.name,), kind="range", measure=measure, value=value))
        elif task == "regression" and info.kind == "numeric":
            told = _told_by_label(_numbers(rows.get_column(info.name)), labels[0])
            if told >= limit:
                leaks.append(Leak(features=(info.name,), kind="transformation", measure=measure, value=told))
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
    """The label as numbers: itself, or for classes whether each of them it is."""
    if task == "regression":
        return [label.cast(pl.Float64).to_numpy()]
    classes = label.unique().sort().to_list()
    return [(label == value).cast(pl.Float64).to_numpy() for value in (classes[1:] if len(classes) == 2 else classes)]


def _alone(feature: pl.Series, labels: list[Floats], kind: str, task: Task) -> float:
    """How well a feature alone predicts the label, of all rows or of those in which it has a value."""
    whole = _told(feature, labels, kind, task)
    known = ~np.isnan(_numbers(feature)) if kind == "numeric" else feature.is_not_null().to_numpy()
    of_known = [label[known] for label in labels]
    if not _FEWEST_ROWS <= known.sum() < len(feature) or (task != "regression" and not _enough_of_each(of_known)):
        return whole
    return max(whole, _told(feature.filter(pl.Series(known)), of_known, kind, task))


def _enough_of_each(labels: list[Floats]) -> bool:
    return all(_FEWEST_OF_CLASS <= label.sum() <= len(label) - _FEWEST_OF_CLASS for label in labels)


def _told(feature: pl.Series, labels: list[Floats], kind: str, task: Task) -> float:
    codes = _quantile_codes(_numbers(feature)) if kind == "numeric" else _category_codes(feature)
    predicted = [_out_of_fold(codes, label) for label in labels]
    ranks = None  # of a numeric feature without gaps
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
    """Whether the label's order puts the rows of each value together, or those without a value."""
    chance = np.random.default_rng(_SEED).random(len(label))  # rows of one label have no order
    order = np.lexsort((chance, label))
    for values in (feature, feature.is_null()):
        codes = values.rank("dense").fill_null(0).to_numpy().astype(np.int64)[order]
        counts = np.unique_counts(codes).counts
        runs = 1 + np.count_nonzero(np.diff(codes))
        in_ranges = counts[
            counts >= _FEWEST_APART
        ].sum()  # any order puts a value of one row, or of equal rows, together
        if runs == len(counts) and len(codes) - counts.max() >= _FEWEST_APART and in_ranges > len(codes) / 2:
            return True
    return False


def _told_by_label(numbers: Floats, label: Floats) -> float:
    """R² of a feature's ranks by their mean over like labels: one for any function of the label."""
    known = ~np.isnan(numbers)
    if known.sum() < _FEWEST_ROWS:
        return 0.0
    ranks, label = _ranks(numbers[known]), label[known]
    codes = pl.Series(label).rank("dense").to_numpy().astype(np.int64)
    most = len(codes) // _FEWEST_APART  # fewer rows of a code would tell themselves
    if codes.max() > most:
        codes = _quantile_codes(label, min(most, _BINS))
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=ranks) / np.maximum(counts, 1)
    unexplained = np.sum((ranks - means[codes]) ** 2) / max(len(ranks) - np.count_nonzero(counts), 1)
    spread = float(ranks.var(ddof=1))
    return 1.0 - float(unexplained) / spread if spread > 0 else 0.0


def _over_classes(aucs: Sequence[float], labels: list[Floats]) -> float:
    """How well the class is told: the mean of all, by their shares, since one of many may well stand apart.

    One that is told without any error counts for all.
    """
    if not aucs or max(aucs) >= 1 - _FLAWLESS:
        return max(aucs, default=0.5)
    return float(np.average(aucs, weights=[label.mean() for label in labels]))


def _numbers(feature: pl.Series) -> Floats:
    numbers = feature.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _quantile_codes(numbers: Floats, bins: int = _BINS) -> np.ndarray:
    """Number of the quantile that a value falls in; nulls are one of their own."""
    known = numbers[~np.isnan(numbers)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if known.size else np.empty(0)
    return np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers, side="left"))


def _category_codes(feature: pl.Series) -> np.ndarray:
    return feature.cast(pl.String).fill_null("").rank("dense").to_numpy().astype(np.int64)


def _out_of_fold(codes: np.ndarray, label: Floats) -> Floats:
    """Mean label of each row's bin in the other half of the rows, drawn to the overall mean where it has few."""
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
    """R² of the label on every two numeric features, each over the rows in which both are known.

    From sums of products alone, so that all pairs cost a few matrix products; a pair that seems to be exact is then
    fitted row by row, since sums lose digits.
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
    """AUC of sum and difference of every two numeric features."""
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
    """AUC of a number for two classes; of more, in the order of their means, the AUC of the worst two neighbours."""
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
    product = float(
        np.sqrt(np.sum(a * a) * np.sum(b * b))
    )  # no BLAS: its threads wait for each other on a busy machine
    return float(np.sum(a * b) / product) ** 2 if product > 0 else 0.0


def _ranks(values: Floats) -> Floats:
    return pl.Series(values).rank("average").to_numpy()


def _auc(scores: Floats, label: Floats) -> float:
    return _rank_auc(_ranks(scores), label)


def _rank_auc(ranks: Floats, label: Floats) -> float:
    """Area under the ROC curve by the Mann–Whitney statistic; 0.5 where there is one class only."""
    positives = float(label.sum())
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        return 0.5
    return float((ranks[label == 1.0].sum() - positives * (positives + 1) / 2) / (positives * negatives))
