"""Metrics in words: how good a model is, in the units of those who use it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_platform.registry.manifest import Conformal, Reliability

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "rmsle", "mae", "pinball"})


@dataclass(frozen=True)
class Subject:
    """What a model speaks of.

    Attributes
    ----------
    task
        binary, multiclass or regression.
    things
        What its rows are, in the plural: flights.
    target
        What is predicted, in words.
    unit
        Of a number that is predicted; empty for none.
    quantile
        Which quantile of a number is predicted; None for its mean.
    """

    task: str
    things: str
    target: str
    unit: str = ""
    quantile: float | None = None


@dataclass(frozen=True)
class Outcomes:
    """How the answers of a binary model came true, in rows.

    Attributes
    ----------
    hits
        Rows that it marked, and that were.
    false_alarms
        Rows that it marked, and that were not.
    misses
        Rows that it did not mark, and that were.
    rows
        All of them.
    """

    hits: float
    false_alarms: float
    misses: float
    rows: int


def things_of(identifier: str | None) -> str:
    """What the rows of a model are, from the name of the column that identifies them.

    Examples
    --------
    >>> things_of("flight_id"), things_of("entry_id"), things_of("id"), things_of(None)
    ('flights', 'entries', 'cases', 'cases')
    """
    noun = (identifier or "").removesuffix("_id").removesuffix("_key").replace("_", " ").strip()
    if not noun or noun in ("id", "key", "row") or len(noun) > 30:
        return "cases"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun if noun.endswith("s") else f"{noun}s"


def outcomes_of(metrics: Mapping[str, float], reliability: Sequence[Reliability]) -> Outcomes | None:
    """Counts of right and wrong answers, from the share of right ones, F1, and how many rows were what was predicted.

    With accuracy A, F1 F, n rows and p that were: hits = F (1 − A) n / (2 (1 − F)), misses = p − hits, false alarms =
    (1 − A) n − misses. None where these do not say it.

    Examples
    --------
    >>> rows = [Reliability(predicted=0.2, observed=0.25, rows=100)]
    >>> outcomes_of({"accuracy": 0.8, "f1": 0.6}, rows)
    Outcomes(hits=15.0, false_alarms=10.0, misses=10.0, rows=100)
    """
    accuracy, f1 = metrics.get("accuracy"), metrics.get("f1")
    rows = sum(one.rows for one in reliability)
    if accuracy is None or f1 is None or not rows or f1 >= 1.0:
        return None
    positives = sum(one.observed * one.rows for one in reliability)
    hits = f1 * (1 - accuracy) * rows / (2 * (1 - f1))
    misses = positives - hits
    false_alarms = (1 - accuracy) * rows - misses
    slack = 0.005 * rows
    if min(hits, misses, false_alarms) < -slack or hits > positives + slack:
        return None  # the numbers are of different rows
    hits, false_alarms, misses = (round(max(one, 0.0), 6) for one in (hits, false_alarms, misses))
    return Outcomes(hits, false_alarms, misses, rows)


def number(value: float) -> str:
    """A number as people say it, with two or three digits that count.

    Examples
    --------
    >>> number(1234.5), number(12.34), number(9.0), number(0.1234)
    ('1,234', '12', '9', '0.12')
    """
    if abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}".rstrip("0").rstrip(".") if abs(value) >= 1 else f"{value:.2g}"


def of_hundred(share: float) -> str:
    """A share as so many of 100.

    Examples
    --------
    >>> of_hundred(0.614), of_hundred(0.004), of_hundred(0.0), of_hundred(0.997)
    ('61', 'fewer than 1', '0', 'more than 99')
    """
    if 0 < share < 0.005:
        return "fewer than 1"
    if 0.995 < share < 1:
        return "more than 99"
    return f"{100 * share:.0f}"


def metric_in_words(name: str, value: float, of: Subject) -> str:
    """One metric in a few words, to compare groups or versions by.

    Examples
    --------
    >>> flights = Subject("binary", "flights", "late")
    >>> metric_in_words("roc_auc", 0.794, flights)
    'tells late from not late in 79 of 100 pairs'
    >>> metric_in_words("mae", 12.5, Subject("regression", "flights", "delay", "minutes"))
    'off by 12 minutes on average'
    """
    unit = f" {of.unit}" if of.unit else ""
    apart = "tells classes apart" if of.task == "multiclass" else f"tells {of.target} from not {of.target}"
    share = of_hundred(value)
    said = {
        "roc_auc": lambda: f"{apart} in {share} of 100 pairs",
        "accuracy": lambda: f"right in {share} of 100",
        "mae": lambda: f"off by {number(value)}{unit} on average",
        "rmse": lambda: f"off by {number(value)}{unit}, large errors counting more",
        "rmsle": lambda: f"off by about {number(100 * math.expm1(value))} %",
        "coverage": lambda: f"the true value at most the answer in {share} of 100",
        "r2": lambda: f"explains {number(max(0.0, 100 * value))} % of the differences",
    }.get(name)
    return said() if said else f"{name.replace('_', ' ')} {number(value)}"


def quality_in_words(
    of: Subject,
    metrics: Mapping[str, float],
    *,
    outcomes: Outcomes | None = None,
    conformal: Conformal | None = None,
    naive: Mapping[str, float] | None = None,
    naive_words: str = "",
) -> list[str]:
    """How good a model is, in sentences, beside the simplest answer."""
    match of.task:
        case "binary":
            said = _binary(of, metrics, outcomes)
        case "multiclass":
            said = _multiclass(of, metrics)
        case _:
            said = _quantile(of, metrics) if of.quantile is not None else _regression(of, metrics, conformal)
    said += _beside(of, metrics, naive or {}, naive_words)
    return said or ["What was measured cannot be said in words: the model card has the numbers."]


def _binary(of: Subject, metrics: Mapping[str, float], outcomes: Outcomes | None) -> list[str]:
    said = []
    if outcomes is not None:
        marked, there = outcomes.hits + outcomes.false_alarms, outcomes.hits + outcomes.misses
        if marked < 0.5:
            said.append(f"It marked none of the {of.things} as {of.target}.")
        else:
            said.append(
                f"Of 100 {of.things} that it marks as {of.target}, {of_hundred(outcomes.hits / marked)} are; the "
                "others are false alarms."
            )
        if there >= 0.5:
            said.append(f"Of 100 {of.things} that are {of.target}, it finds {of_hundred(outcomes.hits / there)}.")
        said.append(
            f"It marks {of_hundred(marked / outcomes.rows)} of 100 {of.things}; in truth "
            f"{of_hundred(there / outcomes.rows)} are {of.target}."
        )
    if "roc_auc" in metrics:
        said.append(
            f"Shown one that is {of.target} and one that is not, it gives the first the higher probability "
            f"{of_hundred(metrics['roc_auc'])} times of 100; guessing does 50 times."
        )
    return said


def _multiclass(of: Subject, metrics: Mapping[str, float]) -> list[str]:
    said = []
    if "accuracy" in metrics:
        said.append(f"Of 100 {of.things}, it names the right {of.target} for {of_hundred(metrics['accuracy'])}.")
    if "roc_auc" in metrics:
        said.append(
            f"Shown one of a class and one of another, it gives the first the higher probability of that class "
            f"{of_hundred(metrics['roc_auc'])} times of 100, over all classes alike; guessing does 50 times."
        )
    return said


def _regression(of: Subject, metrics: Mapping[str, float], conformal: Conformal | None) -> list[str]:
    unit = f" {of.unit}" if of.unit else ""
    said = []
    for level, share in ((0.5, "Half"), (0.9, "Nine of ten")):
        if conformal is not None and conformal.lower and level in conformal.levels:
            place = conformal.levels.index(level)
            reach = max(abs(conformal.lower[place]), abs(conformal.upper[place]))
            even = min(abs(conformal.lower[place]), abs(conformal.upper[place])) > 0.8 * reach
            said.append(
                f"{share if even else f'At least {share.lower()}'} of the answers are within {number(reach)}{unit} of "
                "what came."
            )
    if "mae" in metrics:
        said.append(f"On average an answer is off by {number(metrics['mae'])}{unit}.")
    elif "rmse" in metrics:
        said.append(f"An answer is off by {number(metrics['rmse'])}{unit}, large errors counting more.")
    return said


def _quantile(of: Subject, metrics: Mapping[str, float]) -> list[str]:
    wanted = of_hundred(of.quantile or 0.0)
    said = [f"The answer is meant as a bound: {of.target} should be at most that in {wanted} of 100 {of.things}."]
    if "coverage" in metrics:
        said.append(f"It was in {of_hundred(metrics['coverage'])} of 100.")
    return said


def _beside(of: Subject, metrics: Mapping[str, float], naive: Mapping[str, float], words: str) -> list[str]:
    """The simplest answer, by the first metric that people understand."""
    order = {
        "binary": ("roc_auc", "accuracy"),
        "multiclass": ("accuracy", "roc_auc"),
    }.get(of.task, ("pinball",) if of.quantile is not None else ("mae", "rmse"))
    name = next((one for one in order if one in metrics and one in naive), None)
    if name is None:
        return []
    words = words.replace("share of positives", f"share of {of.target}") if of.task == "binary" else words
    what = f"The simplest answer ({words})" if words else "The simplest answer"
    own, other = metrics[name], naive[name]
    better = own < other if name in LOWER_IS_BETTER else own > other
    if name == "pinball":
        verdict = f", {100 * (1 - own / other):.0f} % less" if better and other else ", no less"
        return [f"{what} has a loss of {number(other)}; the model has {number(own)}{verdict}."]
    said = f"{what} would be: {metric_in_words(name, other, of)}. The model: {metric_in_words(name, own, of)}"
    if name in ("mae", "rmse") and better and other:
        return [f"{said}, {100 * (1 - own / other):.0f} % less."]
    return [f"{said}." if better else f"{said}: no better than that."]
