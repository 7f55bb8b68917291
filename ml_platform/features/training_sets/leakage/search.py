"""The search for leaks: what stops a training set, and what a person should look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.features.training_sets.leakage.combinations import (
    complete_columns,
    equal_pairs,
    joint_subset,
    logarithms,
    ranked_pairs,
)
from ml_platform.features.training_sets.leakage.history import later_label, orders, persistence
from ml_platform.features.training_sets.leakage.measures import (
    FEWEST_ROWS,
    FLAWLESS,
    SEED,
    Floats,
    alone,
    enough_of_each,
    explained_by_label,
    label_arrays,
    label_auc,
    numbers_of,
    tells_ranges,
)
from ml_platform.features.training_sets.leakage.own_label import OwnLabels
from ml_platform.spec.model import Leakage
from ml_platform.spec.types import Strict, Task

_EXACT = 1e-6  # share of the label's variance that noise may leave in what counts as an equality
_EXACT_PAIR = 1e-9  # the same of two features, which are fitted on more rows
_GIVES = 0.999  # R² or AUC below which a combination is said to give the label nearly
_NOISY = 0.99  # R² from which a combination of a few features is worth a look
_NO_BETTER = 0.5  # of what the previous label leaves unexplained: a feature that leaves more than that is not too good
_NOT_REPORTED = 0.9  # of a strength alone, from which a feature needs no other for its finding

Kind = Literal["alone", "transformation", "range", "combination", "product", "later label", "own label"]
Measure = Literal["R²", "AUC"]


class Leak(Strict):
    """One finding: features that predict the label, how, and how well."""

    features: tuple[str, ...] = Field(description="The features that give the label, one or up to four together.")
    kind: Kind = Field(description="In which way they give it.")
    measure: Measure = Field(description="What `value` is.")
    value: float = Field(description="How well they predict the label, 0 to 1; 1 is without error.")
    note: str = Field(
        "", description="Text that follows the value, such as how well the label of the row before does; may be empty."
    )

    @property
    def reason(self) -> str:
        """The finding as a sentence."""
        names = _listed([f"'{name}'" for name in self.features])
        gives = "gives" if self.value >= _GIVES else "nearly gives"
        what = {
            "alone": f"{names} alone predicts the label",
            "transformation": f"{names} is the label in another form",
            "range": f"{names} says in which range the label lies",
            "combination": f"the sum or difference of {names}, each scaled, {gives} the label",
            "product": f"a product or ratio of {names} {gives} the label",
            "later label": f"{names} is the label of a later row",
            "own label": f"{names} is a mean of labels that knows the row's own",
        }[self.kind]
        return f"{what} ({self.measure} {self.value:.4f}{self.note})"


class LeakageReport(Strict):
    """The result of the search."""

    rows: int = Field(description="Labelled rows that were looked at.")
    judged: bool = Field(description="Whether there were enough rows to judge.")
    leaks: tuple[Leak, ...] = Field(description="What knows the label and stops the training set.")
    suspects: tuple[Leak, ...] = Field((), description="What may know the label, shown and not stopped.")
    strength: dict[str, float] = Field(description="Feature → R² or AUC of the feature alone, strongest first.")
    not_judged: str = Field("", description="Why nothing could be said, or not everything; empty when all was judged.")


def find_leakage(
    frame: pl.DataFrame,
    features: Sequence[FeatureInfo],
    *,
    target: str,
    task: Task,
    limits: Leakage | None = None,
    timestamp: str | None = None,
) -> LeakageReport:
    """Look for features that predict the label implausibly well.

    Single features are judged by how well the mean label per quantile or category of one half of the rows predicts the
    other half; so an identifier, which determines the label of its own row only, does not count. In addition:

    - numbers by their linear and rank correlation with a numeric label;
    - features with missing values also by only the rows in which they have a value;
    - features that say in which range a numeric label lies (for example above a threshold), which may explain little of
      its variance, by whether the order of the labels keeps their values together;
    - numbers computed from the label (its square, its distance from the mean), by how little they vary among rows with
      similar labels;
    - means of labels that hold the row's own (target encoding on the rows that are trained on);
    - with `timestamp`, numbers that are the label of a later row, in all or within the values of a category.

    Of two numeric features, every linear combination is compared with a numeric label; for classes, their sum and
    difference are ranked. Sums, products and ratios of up to four are found among all numeric features at once. With
    more than two classes the mean AUC counts, since one class may be easy to tell (the largest kind of bean by its
    size), unless one is told without any error. Infinite numbers count as missing.

    What is exact, or as good as `max_r2` or `max_auc`, is a leak; what reaches `warn_r2` or `warn_auc` is suspect. A
    feature of a slow series that is no better than the label before it is suspect at most: it may be a lag.

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
    timestamp
        Column with the instant of a row; without it nothing is judged by order.

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
    if rows.height < FEWEST_ROWS:
        return LeakageReport(
            rows=rows.height,
            judged=False,
            leaks=(),
            strength={},
            not_judged=f"{rows.height} labelled rows, at least {FEWEST_ROWS} are needed: nothing is known about leaks",
        )
    # Shuffled, because the first rows stand for all below, and they may be sorted by the label.
    drawn = rows.sample(min(rows.height, limits.sample_rows), shuffle=True, seed=SEED)
    labels = label_arrays(drawn.get_column(target), task)
    is_class = task != "regression"
    search = _Search(
        task=task,
        features=judged,
        drawn=drawn,
        labels=labels,
        strength={info.name: alone(drawn.get_column(info.name), labels, info.kind, task) for info in judged},
        measure="AUC" if is_class else "R²",
        leak=limits.max_auc if is_class else limits.max_r2,
        suspect=limits.warn_auc if is_class else limits.warn_r2,
    )
    past = _history(rows, search, target=target, timestamp=timestamp, most=limits.sample_rows)
    findings = [*_singles(search, past), *_by_history(search, past)]
    if limits.pairs:
        known = {
            name for finding, is_leak in findings if is_leak and search.says_all(finding) for name in finding.features
        }
        findings += _together(
            search, [info.name for info in judged if info.kind == "numeric" and info.name not in known]
        )
    too_few = is_class and not enough_of_each(labels)
    return LeakageReport(
        rows=drawn.height,
        judged=True,
        leaks=_sorted(finding for finding, is_leak in findings if is_leak),
        suspects=_sorted(finding for finding, is_leak in findings if not is_leak),
        strength=dict(sorted(search.strength.items(), key=lambda item: (-item[1], item[0]))),
        not_judged="a class has fewer than 5 rows: what tells it from the others may be chance" if too_few else "",
    )


def single_strength(
    frame: pl.DataFrame, features: Sequence[FeatureInfo], *, target: str, task: Task, limits: Leakage
) -> dict[str, float]:
    """R² or AUC of each feature alone, strongest first, allowed ones too; empty below 100 labelled rows."""
    report = find_leakage(
        frame, features, target=target, task=task, limits=limits.model_copy(update={"allow": (), "pairs": False})
    )
    return report.strength


@dataclass(frozen=True)
class _Search:
    """What is searched, by which measure, and from where on a feature is a leak or suspect."""

    task: Task
    features: Sequence[FeatureInfo]
    drawn: pl.DataFrame
    labels: list[Floats]
    strength: dict[str, float]
    measure: Measure
    leak: float
    suspect: float

    @property
    def is_class(self) -> bool:
        """Whether classes are predicted."""
        return self.task != "regression"

    def finding(self, kind: Kind, value: float, *names: str, note: str = "") -> Leak:
        """Build a finding in the search's measure."""
        return Leak(features=names, kind=kind, measure=self.measure, value=value, note=note)

    def says_all(self, finding: Leak) -> bool:
        """Whether a feature says all about the label, so that nothing is learned from its combinations."""
        return self.is_class or finding.kind in {"transformation", "alone"}


@dataclass(frozen=True)
class _History:
    """All rows with their labels, and the newest in their orders of time; no order without a column of time."""

    rows: pl.DataFrame
    labels: list[Floats]
    categories: list[str]
    newest: pl.DataFrame
    newest_labels: list[Floats]
    ordered: list[tuple[np.ndarray, np.ndarray]]
    persistence: float  # R² or AUC of the previous row's label


def _history(rows: pl.DataFrame, search: _Search, *, target: str, timestamp: str | None, most: int) -> _History:
    categories = [info.name for info in search.features if info.kind == "categorical"]
    labels = label_arrays(rows.get_column(target), search.task)
    if timestamp is None:
        return _History(rows, labels, categories, rows.clear(), [], [], 0.0)
    newest = rows.sort(timestamp).tail(most)
    newest_labels = label_arrays(newest.get_column(target), search.task)
    ordered = list(orders(newest, timestamp, categories))
    previous = [persistence(label, ordered, is_class=search.is_class) for label in newest_labels]
    return _History(rows, labels, categories, newest, newest_labels, ordered, min(previous, default=0.0))


def _singles(search: _Search, past: _History) -> Iterator[tuple[Leak, bool]]:
    for info in search.features:
        feature, value = search.drawn.get_column(info.name), search.strength[info.name]
        if value >= 1 - FLAWLESS:
            yield search.finding("transformation", value, info.name), True
        elif value >= search.suspect and 1 - value >= _NO_BETTER * (1 - past.persistence):
            note = f", of the label of the row before {past.persistence:.4f}"
            yield search.finding("alone", value, info.name, note=note), False
        elif value >= search.leak:
            yield search.finding("alone", value, info.name), True
        elif not search.is_class and tells_ranges(feature, search.labels[0]):
            yield search.finding("range", value, info.name), True
        elif value >= search.suspect:
            yield search.finding("alone", value, info.name), False
        elif not search.is_class and info.kind == "numeric":
            value = explained_by_label(numbers_of(feature), search.labels[0])
            if value >= _NOISY:
                yield search.finding("transformation", value, info.name), True


def _by_history(search: _Search, past: _History) -> Iterator[tuple[Leak, bool]]:
    """Later labels, and means that hold the row's own label."""
    own_labels = OwnLabels(past.rows, past.labels, past.categories)
    for info in search.features:
        if info.kind != "numeric":
            continue
        if own_labels.hold(info.name):
            yield Leak(features=(info.name,), kind="own label", measure=search.measure, value=1.0), True
            continue
        for label in past.newest_labels:
            later = later_label(past.newest.get_column(info.name), label, past.ordered, search.suspect)
            if later is not None:
                shift, value = later
                note = f", {shift} row{'s' if shift > 1 else ''} later"
                finding = Leak(features=(info.name,), kind="later label", measure="R²", value=value, note=note)
                yield finding, value >= 1 - _EXACT
                break


def _together(search: _Search, names: Sequence[str]) -> Iterator[tuple[Leak, bool]]:
    """Combinations: pairs first; where there is none, up to four features at once."""
    is_class, drawn = search.is_class, search.drawn
    pairs = ranked_pairs(drawn, names, search.labels) if is_class else equal_pairs(drawn, names, search.labels[0])
    exact = [(pair, value) for pair, value in pairs if value >= (search.leak if is_class else 1 - _EXACT_PAIR)]
    for pair, value in exact:
        yield search.finding("combination", value, *pair), True
    if exact:
        return
    columns, known = complete_columns(drawn, [name for name in names if search.strength[name] < search.suspect])
    best: dict[tuple[str, ...], Leak] = {}
    for label in search.labels:
        for kind, x, y in _spaces(columns, label[known], is_class=is_class):
            subset = joint_subset(x, y, bound=search.suspect if is_class else _NOISY, is_class=is_class)
            if subset is None or subset[1] <= (best[subset[0]].value if subset[0] in best else 0.0):
                continue
            names, value = subset
            # A class that one of them tells alone, as the largest kind of bean by its size, needs no combination.
            single = max(
                abs(label_auc(x[name], y) - 0.5) + 0.5 if is_class else search.strength[name] for name in names
            )
            if single < _NOT_REPORTED * value or (not is_class and value >= 1 - _EXACT):
                best[names] = search.finding(kind, value, *names)
    for finding in best.values():
        yield finding, finding.value >= (search.leak if is_class else 1 - _EXACT)


def _spaces(
    columns: dict[str, Floats], label: Floats, *, is_class: bool
) -> Iterator[tuple[Literal["combination", "product"], dict[str, Floats], Floats]]:
    """The columns as they are, and their logarithms, where a product becomes a sum."""
    yield "combination", columns, label
    if is_class:
        yield "product", logarithms(columns), label
    elif label.size and (np.abs(label) > 0).all():
        yield "product", logarithms(columns), np.log(np.abs(label))


def _sorted(findings: Iterator[Leak]) -> tuple[Leak, ...]:
    return tuple(sorted(findings, key=lambda finding: (-finding.value, finding.features)))


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
