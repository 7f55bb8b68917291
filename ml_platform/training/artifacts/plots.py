"""Pictures of a model as PNG bytes: what people look at before they read a number."""

from collections.abc import Mapping

import numpy as np

from ml_platform.registry.interval_figure import labelled
from ml_platform.registry.manifest import Label
from ml_platform.spec.types import Task
from ml_platform.training.artifacts.figures import BLUE, GREY, RED, new_figure, png_bytes
from ml_platform.training.documents import Interval

_MOST_POINTS = 4000
_MOST_BARS = 20
_CALIBRATION_BINS = 12


def model_plots(
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    importance: Mapping[str, float],
    *,
    threshold: float | None = None,
    quantile: float | None = None,
    classes: tuple[Label, ...] = (),
) -> dict[str, bytes]:
    """Draw what suits the task, from holdout labels and scores.

    Returns
    -------
    dict
        File name → PNG: `importance.png` always; for binary `calibration.png`, `precision_recall.png` and
        `confusion.png` (at the threshold); for multiclass `confusion.png`; for regression `predicted_actual.png` and
        `residuals.png`, or `coverage.png` of a quantile.
    """
    images = {"importance.png": importance_plot(importance)}
    if task == "binary":
        cut = 0.5 if threshold is None else threshold
        images["calibration.png"] = calibration_plot(y, score)
        images["precision_recall.png"] = precision_recall_plot(y, score, cut)
        title = f"Holdout rows at threshold {cut:.3f}"
        images["confusion.png"] = confusion_plot(y.astype(int), (score >= cut).astype(int), ("false", "true"), title)
    elif task == "multiclass":
        actual, names = y.astype(int), tuple(map(str, classes))
        if (actual < 0).any():
            actual, names = np.where(actual < 0, len(classes), actual), (*names, "(unknown)")
        images["confusion.png"] = confusion_plot(actual, score.argmax(axis=1), names, "Holdout rows")
    else:
        images["predicted_actual.png"] = predicted_actual_plot(y, score)
        if quantile is None:
            images["residuals.png"] = residuals_plot(y, score)
        else:
            images["coverage.png"] = coverage_plot(y, score, quantile)
    return images


def intervals_plot(metric: str, interval: Interval, within: Interval | None, *, bound: float = 0.0) -> bytes:
    """Both intervals of a gain to one scale: over blocks, which decides, and for the same blocks with other rows."""
    shown = labelled(interval, within)[::-1]
    figure, axes = new_figure(8, 1.3 + 0.45 * len(shown))
    axes.axvline(0, color=GREY)
    if bound:
        axes.axvline(bound, color=RED, linestyle="--", label=f"lower bound wanted above {bound:+.4g}")
        axes.legend(loc="best")
    for place, (_, one) in enumerate(shown):
        axes.plot([one.lower, one.upper], [place, place], color=BLUE, linewidth=3, solid_capstyle="round")
        axes.plot(one.gain, place, "o", color=BLUE)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.set(title=f"Gain in {metric}", ylim=(-0.6, len(shown) - 0.4))
    return png_bytes(figure)


def importance_plot(importance: Mapping[str, float]) -> bytes:
    """Bars of the largest shares of importance."""
    top = sorted(importance.items(), key=lambda item: item[1])[-_MOST_BARS:]
    figure, axes = new_figure(7, 0.9 + 0.28 * len(top))
    axes.barh([name for name, _ in top], [share for _, share in top], color=BLUE)
    axes.set(title="Feature importance", xlabel="share of the total")
    return png_bytes(figure)


def calibration_plot(y: np.ndarray, score: np.ndarray) -> bytes:
    """Predicted probability against observed share, in bins of equal size."""
    groups = np.array_split(np.argsort(score, kind="stable"), min(_CALIBRATION_BINS, len(y)))
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect")
    axes.plot(
        [score[group].mean() for group in groups],
        [y[group].mean() for group in groups],
        "o-",
        color=BLUE,
        label="model",
    )
    axes.set(title="Calibration", xlabel="predicted probability", ylabel="observed share")
    axes.legend()
    return png_bytes(figure)


def precision_recall_plot(y: np.ndarray, score: np.ndarray, threshold: float) -> bytes:
    """Precision over recall, with the chosen threshold marked."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(y[order])
    precision, recall = hits / np.arange(1, len(y) + 1), hits / max(hits[-1], 1)
    figure, axes = new_figure()
    axes.plot(recall, precision, color=BLUE)
    axes.axhline(float(y.mean()), color=GREY, linestyle="--", label=f"share of positives {y.mean():.2f}")
    chosen = int((score >= threshold).sum())
    if chosen:
        label = f"threshold {threshold:.3f}"
        axes.plot(recall[chosen - 1], precision[chosen - 1], "o", color=RED, label=label)
    axes.set(title="Precision and recall", xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    axes.legend()
    return png_bytes(figure)


def confusion_plot(actual: np.ndarray, predicted: np.ndarray, names: tuple[str, ...], title: str) -> bytes:
    """Counts of actual against predicted classes."""
    size = len(names)
    counts = np.bincount(actual * size + predicted, minlength=size * size).reshape(size, size)
    figure, axes = new_figure(4.5 + 0.3 * size, 3.8 + 0.3 * size)
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for row in range(size):
        for column in range(size):
            share = counts[row, column] / max(counts[row].sum(), 1)
            text = f"{counts[row, column]:,}\n{share:.0%}"
            axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.5 else "black")
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    axes.set(title=title, xlabel="predicted", ylabel="actual")
    return png_bytes(figure)


def predicted_actual_plot(y: np.ndarray, score: np.ndarray) -> bytes:
    """Actual over predicted values."""
    step = max(1, len(y) // _MOST_POINTS)
    figure, axes = new_figure()
    axes.plot(score[::step], y[::step], ".", color=BLUE, alpha=0.3, markersize=3)
    span = [float(min(score.min(), y.min())), float(max(score.max(), y.max()))]
    axes.plot(span, span, color=GREY, linestyle="--")
    axes.set(title="Predicted and actual", xlabel="predicted", ylabel="actual")
    return png_bytes(figure)


def residuals_plot(y: np.ndarray, score: np.ndarray) -> bytes:
    """Distribution of actual minus predicted; what is outside the middle 99 % is drawn at its edges."""
    residuals = y - score
    low, high = np.quantile(residuals, [0.005, 0.995])
    figure, axes = new_figure()
    axes.hist(np.clip(residuals, low, high), bins=60, color=BLUE)
    axes.axvline(0, color=GREY, linestyle="--")
    axes.set(
        title=f"Residuals (mean {residuals.mean():.2f})",
        xlabel="actual − predicted (outermost 1 % at the edges)",
        ylabel="rows",
    )
    return png_bytes(figure)


def coverage_plot(y: np.ndarray, score: np.ndarray, quantile: float) -> bytes:
    """Share of labels at or below a predicted quantile, in bins of equal size from low to high predictions."""
    groups = np.array_split(np.argsort(score, kind="stable"), min(_CALIBRATION_BINS, len(y)))
    covered = y <= score
    figure, axes = new_figure()
    axes.axhline(quantile, color=GREY, linestyle="--", label=f"quantile {quantile:g}")
    means = [score[group].mean() for group in groups]
    axes.plot(means, [covered[group].mean() for group in groups], "o-", color=BLUE, label="model")
    axes.set(
        title=f"Coverage ({covered.mean():.3f} of all rows)",
        xlabel="predicted",
        ylabel="share of actual values at or below",
        ylim=(0, 1.02),
    )
    axes.legend()
    return png_bytes(figure)
