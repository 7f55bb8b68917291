"""A look at the processes that a test started, some of which may end while one looks."""

from contextlib import suppress

import psutil


def the_descendant(pid: int, words: str) -> psutil.Process:
    """The one process, among those that `pid` started, with `words` in its command line."""
    matching = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # Ray's helpers come and go
            if words in " ".join(process.cmdline()):
                matching.append(process)
    [descendant] = matching
    return descendant
