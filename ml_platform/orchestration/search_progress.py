"""Tells how far a search is while its asset runs: in the run's log, and in the terminal that `ml-platform run` has."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ml_platform.training.search.progress import OnProgress, Progress


@dataclass(frozen=True)
class _Terminal:
    tell: Callable[[str], None]
    stream: TextIO


_terminal: ContextVar[_Terminal | None] = ContextVar("_terminal", default=None)


@contextmanager
def shown_in_terminal(tell: Callable[[str], None], stream: TextIO) -> Iterator[None]:
    """Show the searches that run in this process meanwhile.

    Parameters
    ----------
    tell
        Takes a line for each trial where `stream` is no terminal.
    stream
        Where a bar is drawn if it is a terminal.
    """
    token = _terminal.set(_Terminal(tell, stream))
    try:
        yield
    finally:
        _terminal.reset(token)


@contextmanager
def search_progress(log: Callable[[str], None], most_trials: int) -> "Iterator[OnProgress]":
    """Give what a search calls after each trial.

    Parameters
    ----------
    log
        Takes a line for each trial, whatever the terminal shows.
    most_trials
        Length of the bar.
    """
    terminal = _terminal.get()
    if terminal is None:
        yield lambda progress: log(progress.line)
    elif not terminal.stream.isatty():

        def in_lines(progress: "Progress") -> None:
            log(progress.line)
            terminal.tell(f"           {progress.line}")

        yield in_lines
    else:
        import typer

        bar = typer.progressbar(
            length=most_trials, label="search", show_pos=True, item_show_func=_leader, file=terminal.stream
        )
        with bar:

            def in_a_bar(progress: "Progress") -> None:
                log(progress.line)
                bar.update(progress.ended - bar.pos, progress)

            yield in_a_bar


def _leader(progress: "Progress | None") -> str | None:
    if progress is None or progress.best is None:
        return None
    return f"{progress.metric} {progress.best.metrics[progress.metric]:.4f} ({progress.best.family})"
