"""Measures commands that work for a while: runs at a terminal, batch scoring, streams, notebooks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Command → how many words name it, and whether a model's name follows.
METERED = {
    ("run",): True,
    ("automl",): False,
    ("score",): True,
    ("replay",): True,
    ("recalibrate",): True,
    ("stream", "run"): True,
    ("features", "stream"): False,
    ("notebook", "run"): False,
}


@contextmanager
def metered_command(arguments: Sequence[str]) -> Iterator[None]:
    """Account for a command of `ml-platform` with all that it starts, where it is one that is measured.

    Parameters
    ----------
    arguments
        What follows `ml-platform`.

    Examples
    --------
    >>> with metered_command(["status"]):  # takes no time worth measuring
    ...     pass
    """
    words = next((words for words in METERED if tuple(arguments[: len(words)]) == words), None)
    if words is None or "--help" in arguments:
        yield
        return
    from ml_platform.cost.meter import Meter
    from ml_platform.cost.records import COMMAND, is_metered
    from ml_platform.settings import Settings

    if is_metered():
        yield
        return
    named = next((one for one in arguments[len(words) :] if not one.startswith("-")), "") if METERED[words] else ""
    job = " ".join([*words, named]) if named else " ".join(words)
    meter = Meter(Settings().cost_dir, COMMAND, {"job": job, "model": named}, whole_process=True)
    meter.start()
    try:
        yield
    finally:
        meter.close()
