"""The leaderboard for people: lines of a terminal, a table of Markdown, a picture."""

import io
from collections.abc import Iterator

from ml_platform.automl.documents import Entry, Leaderboard
from ml_platform.spec.model import LOWER_IS_BETTER


def decision_lines(board: Leaderboard) -> Iterator[str]:
    """What was decided, one line each."""
    for one in board.plan.decisions:
        yield f"{one.what}: {one.value} ({one.why})" + (f"  [{one.option}]" if one.option else "")


def leaderboard_lines(board: Leaderboard) -> Iterator[str]:
    """The leaderboard as lines of text."""
    better = "lower" if board.plan.metric in LOWER_IS_BETTER else "higher"
    yield f"{board.plan.name}: {board.plan.metric} ({better} is better), {board.trials} trials in {board.seconds:.0f} s"
    width = max(len(entry.trial) for entry in board.entries)
    share = f"{100 * board.confidence:.0f} % interval"
    yield (
        f"   # {'trial':<{width}}  {'validation':>10}  {'holdout':>10}  {share:>23}  {'fit s':>7}  {'µs/row':>8}  "
        f"{'KiB':>8}"
    )
    for number, entry in enumerate(board.entries, 1):
        yield (
            f"{number:>4} {entry.trial:<{width}}  {_figure(entry.validation):>10}  {_figure(entry.holdout):>10}  "
            f"{_interval(entry):>23}  {entry.fit_seconds:>7.2f}  {entry.predict_us:>8.1f}  {_size(entry):>8}"
        )
    yield (
        f"Ranked by the {board.validation_rows:,} validation rows; the holdout's {board.holdout_rows:,} rows chose "
        f"nothing. Intervals are of the holdout metric, over {board.blocks}."
    )
    yield from board.notes


def leaderboard_markdown(board: Leaderboard) -> str:
    """The leaderboard as a table of Markdown."""
    share = f"{100 * board.confidence:.0f} % interval"
    lines = [
        f"| # | trial | {board.plan.metric}, validation | holdout | {share} | fit s | µs a row | KiB | notebook |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {number} | {entry.trial} | {_figure(entry.validation)} | {_figure(entry.holdout)} | {_interval(entry)} | "
        f"{entry.fit_seconds:.2f} | {entry.predict_us:.1f} | {_size(entry)} | {entry.notebook} |"
        for number, entry in enumerate(board.entries, 1)
    ]
    return "\n".join(lines) + f"\n\nIntervals of the holdout metric, over {board.blocks}.\n"


def leaderboard_plot(board: Leaderboard) -> bytes:
    """Draw the holdout metric of each entry with its interval (PNG)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = list(reversed(board.entries))
    figure = Figure(figsize=(7, 1.0 + 0.35 * len(entries)), layout="constrained")
    axes = figure.add_subplot()
    for height, entry in enumerate(entries):
        if entry.lower is not None and entry.upper is not None:
            axes.plot([entry.lower, entry.upper], [height, height], color="#9aa5b1", linewidth=2)
        axes.plot(entry.holdout, height, "o", color="#2f6f9f")
        axes.plot(entry.validation, height, "|", color="#c44e52", markersize=10)
    axes.set_yticks(range(len(entries)), [entry.trial for entry in entries])
    axes.set_xlabel(f"{board.plan.metric}: holdout with interval (blue), validation (red)")
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    return image.getvalue()


def _figure(value: float) -> str:
    return f"{value:.5f}" if abs(value) < 1000 else f"{value:,.1f}"


def _interval(entry: Entry) -> str:
    if entry.lower is None or entry.upper is None:
        return "undefined"
    return f"{_figure(entry.lower)} to {_figure(entry.upper)}"


def _size(entry: Entry) -> str:
    return "no graph" if entry.size_bytes is None else f"{entry.size_bytes / 1024:,.0f}"
