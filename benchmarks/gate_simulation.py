"""What the gate promises, by simulation: coverage of its intervals, false promotions of its rules, power.

Coverage: whole holdouts of two equally good models that err each by row and by day, over days and over single rows.
Rules: gains of a given standard error, as the interval over 28 days sees them; half of the variance is the champion's
own, which the gains of all challengers share.

Worse ones: challengers that are worse by a whole tolerance.
Guardrails: how often chance alone breaks one that a model keeps, by its interval and by the bare number.

    python benchmarks/gate_simulation.py [--repetitions 500]
"""

import argparse
from collections.abc import Iterable

import numpy as np
import polars as pl
from _results import write_section
from scipy.special import stdtrit

from ml_platform.spec.model import ModelSpec
from ml_platform.spec.promotion import Promotion
from ml_platform.training.evaluation.cluster_interval import gain_interval, within_blocks
from ml_platform.training.evaluation.contenders import JudgedRows, contender
from ml_platform.training.evaluation.guardrails.calibration import calibration_error
from ml_platform.training.evaluation.guardrails.fairness import rate_difference
from ml_platform.training.evaluation.guardrails.slices import group_results
from ml_platform.training.evaluation.rule import rule_of

ROWS_PER_DAY, BLOCKS, GROUPS, DRAWS = 100, 28, 10, 20_000
ERRORS = (5e-4, 1e-3, 1.5e-3, 2e-3, 2.5e-3, 3e-3, 4e-3, 5e-3, 7e-3, 1e-2, 2e-2)
RULES = {
    "default: min_gain 0.005, tolerance 0.0005": Promotion(),
    "superior": Promotion(mode="superior"),
    "min_gain 0.005, tolerance 0.0025": Promotion(tolerance=0.0025),
    "min_gain 0.005, tolerance 0.005": Promotion(tolerance=0.005),
    "min_gain 0.003, tolerance 0.005": Promotion(min_gain=0.003, tolerance=0.005),
    "min_gain 0, tolerance 0.005": Promotion(min_gain=0, tolerance=0.005),
}


def coverage(days: int, effect: float, metric: str, repetitions: int) -> tuple[float, float]:
    """Share of 95 % intervals that hold the truth, no gain: over days, and over rows."""
    rng, day = np.random.default_rng(days), np.repeat(np.arange(days), ROWS_PER_DAY)
    held: tuple[list[bool], list[bool]] = ([], [])
    for repetition in range(repetitions):
        known = rng.normal(-0.5, 1.0, len(day))
        shifts = rng.normal(0, effect, (3, days))[:, day]
        y = (rng.random(len(day)) < _probability(known + shifts[0])).astype(np.float64)
        models = [_probability(known + rng.normal(0, 0.5, len(day)) + shift) for shift in shifts[1:]]
        for column, blocks in enumerate((day, np.arange(len(day)))):
            if column == 0 or repetition % 5 == 0:  # single rows fail so plainly that a fifth suffices
                found = gain_interval(metric, "binary", y, models[0], models[1], blocks=blocks)
                held[column].append(found is not None and found.lower <= 0 <= found.upper)
    return float(np.mean(held[0])), float(np.mean(held[1]))


def promoted(promotion: Promotion, error: float, *, gain: float = 0.0, tries: int = 1) -> float:
    """Share of champions of ROC AUC 0.75 that lose their place to one of the challengers, each better by `gain`."""
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(DRAWS, 1))
    gains = gain + error * (shared + rng.normal(size=(DRAWS, tries))) / np.sqrt(2)
    errors = error * np.sqrt(rng.chisquare(BLOCKS - 1, gains.shape) / (BLOCKS - 1))
    passed = np.zeros(DRAWS, dtype=bool)
    for number in range(tries):
        rule = rule_of(promotion, "roc_auc", reference=0.75, tries=1 + number, first=False)
        lower = gains[:, number] - stdtrit(BLOCKS - 1, (1 + rule.confidence) / 2) * errors[:, number]
        passed |= (gains[:, number] >= rule.min_gain) & (lower > rule.bound)
    return float(passed.mean())


def _probability(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


def within(effect: float, repetitions: int) -> tuple[float, float]:
    """Share of 95 % within-day intervals that hold the gain of the drawn days, and that of all days, which is none."""
    rng, day = np.random.default_rng(4), np.repeat(np.arange(28), ROWS_PER_DAY)
    folds = within_blocks(day)
    held: tuple[list[bool], list[bool]] = ([], [])
    for _ in range(max(2, repetitions // 20)):
        shifts = rng.normal(0, effect, (3, 28))[:, day]
        found = []
        for _ in range(20):
            known = rng.normal(-0.5, 1.0, len(day))
            y = (rng.random(len(day)) < _probability(known + shifts[0])).astype(np.float64)
            models = [_probability(known + rng.normal(0, 0.5, len(day)) + shift) for shift in shifts[1:]]
            found.append(gain_interval("log_loss", "binary", y, models[0], models[1], blocks=folds))
        truth = np.mean([one.estimate for one in found])
        held[0].extend(one.lower <= truth <= one.upper for one in found)
        held[1].extend(one.lower <= 0 <= one.upper for one in found)
    return float(np.mean(held[0])), float(np.mean(held[1]))


def broken(effect: float, repetitions: int) -> dict[str, tuple[float, float]]:
    """Share of holdouts in which chance breaks a guardrail: by its interval (with a bound of 0), by the bare number."""
    rng, day = np.random.default_rng(5), np.repeat(np.arange(28), ROWS_PER_DAY)
    spec = _slice_spec()
    found: dict[str, list[tuple[bool, bool]]] = {}
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    for _ in range(repetitions):
        known = rng.normal(-0.5, 1.0, len(day))
        y = (rng.random(len(day)) < _probability(known + rng.normal(0, effect, 28)[day])).astype(np.float64)
        score = _probability(known[:, None] + effect * nodes) @ weights / weights.sum()
        error = calibration_error("binary", y, score, blocks=day)
        found.setdefault("calibration: error above 0.02", []).append((error.lower > 0, error.value > 0.02))
        group, every = rng.integers(0, GROUPS, len(day)), np.ones(len(day), dtype=bool)
        for name, counted in (("selection", every), ("true-positive", y > 0.5)):
            rate = rate_difference(score > 0.4, counted, group, np.arange(GROUPS), blocks=day)
            title = f"{name} rate of {GROUPS} groups: difference above 0.1"
            found.setdefault(title, []).append((rate.lower > 0, rate.value > 0.1))
        tiny = np.where(rng.random(len(day)) < 0.985, group % 3, 3)
        rate = rate_difference(rng.random(len(day)) < 0.97, every, tiny, np.arange(4), blocks=day)
        title = "selection rate of 97 % in a group of 42 rows: difference above 0.05"
        found.setdefault(title, []).append((rate.lower > 0, rate.value > 0.05))
        sides = [contender(spec, y, _probability(known + rng.normal(0, 0.3, len(day))), 0.5) for _ in range(2)]
        slices = group_results(spec, JudgedRows(pl.DataFrame({"group": group}), y, day), *sides)
        title = f"slices: one of {GROUPS} groups loses more than 0.01 in log-loss"
        verdict = not all(one.passed for one in slices), any(one.loss > 0.01 for one in slices)
        found.setdefault(title, []).append(verdict)
    return {
        name: (float(np.mean([a for a, _ in both])), float(np.mean([b for _, b in both])))
        for name, both in found.items()
    }


def _slice_spec() -> ModelSpec:
    """A model whose guarded groups may lose nothing."""
    return ModelSpec.model_validate(
        {
            "name": "simulated",
            "description": "Labels that days shift.",
            "owner": "team:simulations",
            "task": "binary",
            "target": "y",
            "spine": "spine.sql",
            "id": "id",
            "timestamp": "at",
            "label_available_at": "known_at",
            "inputs": [{"name": "group", "type": "string"}],
            "families": ["logistic_regression"],
            "promotion": {"metric": "log_loss", "slices": ["group"], "max_slice_loss": 0, "min_slice_rows": 100},
            "scoring": {"start": "2024-01-01"},
        }
    )


def _table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    names = list(header)
    lines = [names, ["---"] * len(names), *([str(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def main() -> None:
    """Simulate, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=500)
    repetitions = parser.parse_args().repetitions
    covered = []
    for days in (14, 28):
        for effect in (0, 0.3, 0.6):
            shares = [coverage(days, effect, metric, repetitions) for metric in ("roc_auc", "log_loss")]
            covered.append([days, effect, *(f"{share:.1%}" for pair in shares for share in pair)])
    false = [
        [
            name,
            f"{promoted(rule, 2.5e-3):.1%}",
            f"{max(promoted(rule, error) for error in ERRORS):.1%}",
            f"{promoted(rule, 2.5e-3, tries=8):.1%}",
            f"{max(promoted(rule, error, tries=8) for error in ERRORS):.1%}",
        ]
        for name, rule in RULES.items()
    ]
    worse = [
        [name, f"{-tolerance:+.4f}", f"{max(promoted(rule, error, gain=-tolerance) for error in ERRORS):.1%}"]
        for name, rule in RULES.items()
        for tolerance in [-rule_of(rule, "roc_auc", reference=0.75, tries=1, first=False).bound]
    ]
    inner = [[effect, *(f"{share:.1%}" for share in within(effect, repetitions))] for effect in (0, 0.3, 0.6)]
    vetoes = [
        [effect, name, *(f"{share:.1%}" for share in shares)]
        for effect in (0, 0.3, 0.6)
        for name, shares in broken(effect, repetitions).items()
    ]
    gains = (-0.005, 0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015)
    power = [
        [name, error, *(f"{promoted(rule, error, gain=gain):.0%}" for gain in gains)]
        for name, rule in RULES.items()
        for error in (0.0025, 0.0035, 0.005)
    ]
    write_section(
        "The gate, simulated",
        "python benchmarks/gate_simulation.py",
        [
            f"Coverage of 95 % intervals of the gain of one of two equally good models, {repetitions} holdouts each "
            f"(by row a fifth of them) of {ROWS_PER_DAY} rows a day; the day effect is the standard deviation, in "
            "log-odds, of what a day does to the labels and to each model.",
            "",
            *_table(
                ["days", "day effect", "AUC, by day", "AUC, by row", "log-loss, by day", "log-loss, by row"], covered
            ),
            "",
            "False promotions: a champion loses its place to a challenger that is no better (ROC AUC, 28 days). A "
            "standard error of 0.0025 is what the flights' models have on 28 days.",
            "",
            *_table(["rule", "at 0.0025", "at any error", "one of 8 tries, at 0.0025", "at any error"], false),
            "",
            "What is worse by the rule's whole tolerance, promoted at its first try, at any error.",
            "",
            *_table(["rule", "true gain", "promoted"], worse),
            "",
            "The interval within days, of the same two models (log-loss, 28 days): how often it holds the gain of the "
            "days that were drawn, and that of all days, which it does not see.",
            "",
            *_table(["day effect", "of the same days", "of other days"], inner),
            "",
            f"Guardrails that chance alone breaks, in {repetitions} holdouts of 28 days: a calibrated model, groups "
            "that are treated alike, groups that lose nothing. By its interval: with a bound of 0.",
            "",
            *_table(["day effect", "guardrail", "by its interval", "by the bare number"], vetoes),
            "",
            "Power: share of challengers promoted at their first try, by their true gain.",
            "",
            *_table(["rule", "standard error", *(f"{gain:+.4f}" for gain in gains)], power),
        ],
        packages=("numpy", "scipy"),
    )


if __name__ == "__main__":
    main()
