"""Which inputs know the label: those that are left out because they give it, and those to ask about."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.features.training_sets.leakage import find_leakage
from ml_platform.new_model.inputs import DraftInput
from ml_platform.spec.model import Leakage
from ml_platform.spec.types import Task

# R² or AUC of one input alone from which somebody should say whether it is known in time, and how many are asked about.
ASKED_FROM = {"binary": 0.75, "multiclass": 0.9, "regression": 0.6}
MOST_ASKED = 5
_LOOKED_AT = Leakage(sample_rows=10_000)
_MOST_ROUNDS = 6  # each leaves out what the round before it found


@dataclass(frozen=True)
class StrongInputs:
    """What was found about the inputs.

    Attributes
    ----------
    leaks
        Input → in which way it gives the label. A training set with it would be refused.
    questions
        Input → how well it predicts the label alone.
    """

    leaks: dict[str, str]
    questions: dict[str, str]


def find_strong_inputs(
    rows: pl.DataFrame, inputs: Sequence[DraftInput], *, target: str, task: Task, timestamp: str | None
) -> StrongInputs:
    """Look for inputs that predict the label implausibly well.

    Parameters
    ----------
    rows
        Of the spine, typed, labels as `plain_labels` reads them.
    inputs
        The features.
    target
        Label column.
    task
        The task.
    timestamp
        Column of instants, where the table has a time of its own.
    """
    leaks: dict[str, str] = {}
    questions: dict[str, str] = {}
    kinds = {one.name: "categorical" if one.keys["type"] in {"string", "boolean"} else "numeric" for one in inputs}
    for _ in range(_MOST_ROUNDS):
        infos = [
            FeatureInfo(name=name, kind="categorical" if kind == "categorical" else "numeric", source="input")
            for name, kind in kinds.items()
            if name not in leaks
        ]
        report = find_leakage(rows, infos, target=target, task=task, limits=_LOOKED_AT, timestamp=timestamp)
        measure = "R²" if task == "regression" else "AUC"
        strong = [(name, value) for name, value in report.strength.items() if value >= ASKED_FROM[task]][:MOST_ASKED]
        questions = {name: f"{measure} {value:.2f} alone" for name, value in strong}
        for one in report.suspects:
            if len(one.features) == 1:
                how = "alone" if one.kind == "alone" else f"as a {one.kind}"
                questions[one.features[0]] = f"{one.measure} {one.value:.2f} {how}"
        if not report.leaks:
            break
        for found in report.leaks:
            leaks |= {name: found.reason for name in found.features if name not in leaks}
        questions = {}
    return StrongInputs(leaks, {name: text for name, text in questions.items() if name not in leaks})
