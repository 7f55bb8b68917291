"""Pictures of a study as PNG bytes: how it went, what mattered, and which parameters the good trials have."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml_platform.spec.families import Parameter
from ml_platform.training.artifacts.figures import BLUE, GREY, RED, new_figure, png_bytes
from ml_platform.training.search.records import TrialRecord

_COLOURS = (
    BLUE,
    "#dd8452",
    "#55a868",
    "#8172b3",
    "#937860",
    "#da8bc3",
    "#8c8c8c",
    "#ccb974",
    "#64b5cd",
    "#4c4c4c",
    RED,
)
_LEAST_FOR_IMPORTANCE = 4  # trials of a family, of which less could be said than noise says


def search_plots(records: Sequence[TrialRecord], metric: str, *, higher_is_better: bool) -> dict[str, bytes]:
    """Draw a study.

    Parameters
    ----------
    records
        Its trials; one at least is complete.
    metric, higher_is_better
        What was optimised.

    Returns
    -------
    dict
        File name → PNG: `history.png` always. Of the best trial's family `parameter_importance.png` and
        `parallel_coordinates.png`, where it has four complete trials or more, and parameters that differ.
    """
    images = {"history.png": history_plot(records, metric, higher_is_better=higher_is_better)}
    complete = [record for record in records if record.state == "complete"]
    best = (max if higher_is_better else min)(complete, key=lambda record: record.metrics[metric])
    own = [record for record in complete if record.family == best.family]
    varied = _varied(own)
    if len(own) >= _LEAST_FOR_IMPORTANCE and varied:
        title = best.family.rpartition(".")[2]
        if importance := parameter_importance(own, metric):
            images["parameter_importance.png"] = importance_plot(importance, f"Importance of {title}'s parameters")
        images["parallel_coordinates.png"] = parallel_plot(
            own, varied, metric, higher_is_better=higher_is_better, title=f"Trials of {title}"
        )
    return images


def history_plot(records: Sequence[TrialRecord], metric: str, *, higher_is_better: bool) -> bytes:
    """Metric over the number of the trial, a colour for each family, and the best so far; pruned and failed marked."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(8, 4.2)
    families = list(dict.fromkeys(record.family for record in records))
    complete = [record for record in records if record.state == "complete"]
    values = [record.metrics[metric] for record in complete]
    best = (np.maximum if higher_is_better else np.minimum).accumulate(values)
    axes.step([record.number for record in complete], best, where="post", color=GREY, label="best so far", zorder=1)
    for family, colour in zip(families, _COLOURS * (1 + len(families) // len(_COLOURS)), strict=False):
        points = [(record.number, record.metrics[metric]) for record in complete if record.family == family]
        label = family.rpartition(".")[2]
        axes.scatter([x for x, _ in points], [y for _, y in points], color=colour, label=label, zorder=2)
    edge = min(values) if higher_is_better else max(values)
    for state, mark in (("pruned", "|"), ("failed", "x")):
        numbers = [record.number for record in records if record.state == state]
        if numbers:
            axes.scatter(
                numbers, [edge] * len(numbers), color=RED, marker=mark, label=f"{state}, at the edge", zorder=3
            )
    axes.set(title="Search", xlabel="trial", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right upper", frameon=False)
    return png_bytes(figure)


def parameter_importance(records: Sequence[TrialRecord], metric: str) -> dict[str, float]:
    """Shares of a family's parameters in the variance of the metric (fANOVA), largest first; of those that vary.

    Examples
    --------
    >>> parameter_importance([], "rmse")
    {}
    """
    import optuna

    varied = _varied(records)
    if not varied or len({record.metrics[metric] for record in records}) < 2:
        return {}
    distributions: dict[str, Any] = {name: _distribution(own) for name, own in varied.items()}
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.create_trial(
                params={name: record.suggested[name] for name in varied},
                distributions=distributions,
                value=record.metrics[metric],
            )
            for record in records
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def importance_plot(importance: Mapping[str, float], title: str) -> bytes:
    """Bars of shares."""
    shown = list(importance.items())[::-1]
    figure, axes = new_figure(7, 1.1 + 0.32 * len(shown))
    axes.barh([name for name, _ in shown], [share for _, share in shown], color=BLUE)
    axes.set(title=title, xlabel="share of the metric's variance")
    return png_bytes(figure)


def parallel_plot(
    records: Sequence[TrialRecord],
    varied: Mapping[str, Sequence[Parameter]],
    metric: str,
    *,
    higher_is_better: bool,
    title: str,
) -> bytes:
    """One line for each trial through its parameters to the metric, the better the darker."""
    figure, axes = new_figure(2.2 + 1.3 * (1 + len(varied)), 4.4)
    scales = [_scale(values) for values in varied.values()] + [_scale([r.metrics[metric] for r in records])]
    names = [*varied, metric]
    order = sorted(records, key=lambda record: record.metrics[metric], reverse=not higher_is_better)
    for rank, record in enumerate(order, start=1):  # the best is drawn last
        values = [*(record.suggested[name] for name in varied), record.metrics[metric]]
        heights = [places[value] for (places, _), value in zip(scales, values, strict=True)]
        is_best = rank == len(order)
        axes.plot(
            range(len(names)),
            heights,
            color=RED if is_best else BLUE,
            alpha=1.0 if is_best else 0.15 + 0.65 * rank / len(order),
            linewidth=2.0 if is_best else 1.2,
            label="best" if is_best else None,
        )
    for position, (_, (low, high)) in enumerate(scales):
        axes.axvline(position, color=GREY, linewidth=0.8, zorder=0)
        axes.text(position, -0.04, low, ha="center", va="top", fontsize=8)
        axes.text(position, 1.04, high, ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.tick_params(axis="x", length=0, pad=14)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.14)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title)
    axes.legend(loc="upper left", frameon=False, bbox_to_anchor=(1.0, 1.0))
    return png_bytes(figure)


def _varied(records: Sequence[TrialRecord]) -> dict[str, list[Parameter]]:
    """Values of each parameter that all trials have and that is not the same in all."""
    if not records:
        return {}
    names = [name for name in records[0].suggested if all(name in record.suggested for record in records)]
    values = {name: [record.suggested[name] for record in records] for name in names}
    return {name: own for name, own in values.items() if len(set(own)) > 1}


def _is_number(values: Sequence[Parameter]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _is_logarithmic(values: Sequence[Any]) -> bool:
    """Whether values spread over orders of magnitude, as those drawn on a logarithmic scale."""
    return _is_number(values) and min(values) > 0 and max(values) / min(values) > 10


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not _is_number(values):
        return CategoricalDistribution(sorted(set(values), key=str))
    return FloatDistribution(float(min(values)), float(max(values)), log=_is_logarithmic(values))


def _scale(values: Sequence[Any]) -> tuple[dict[Any, float], tuple[str, str]]:
    """Height of each value on its axis, from 0 to 1, and what stands at the axis' ends."""
    if not _is_number(values):
        choices = sorted(set(values), key=str)
        return {v: place / max(len(choices) - 1, 1) for place, v in enumerate(choices)}, (
            str(choices[0]),
            str(choices[-1]),
        )
    transform = math.log if _is_logarithmic(values) else float
    low, high = transform(min(values)), transform(max(values))
    width = (high - low) or 1.0
    return {value: (transform(value) - low) / width for value in values}, (f"{min(values):.4g}", f"{max(values):.4g}")
