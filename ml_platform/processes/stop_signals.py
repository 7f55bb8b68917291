"""The signals that end a process in good order, as an event that its loop looks at."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and Ctrl-C set while the context is open; who handled them before does so afterwards.

    Only the main thread of a process may open it (raises ValueError elsewhere).

    Examples
    --------
    >>> before = signal.getsignal(signal.SIGTERM)
    >>> with stop_on_signals() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.wait(10)
    True
    >>> signal.getsignal(signal.SIGTERM) == before
    True
    """
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
