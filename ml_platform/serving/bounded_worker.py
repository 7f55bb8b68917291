"""A thread that does one piece of work after another, behind a bounded queue."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ml_platform.serving.http.messages import Refused
from ml_platform.serving.settings import ServingSettings


class BoundedWorker:
    """Does work in one thread that would block the event loop; when the queue is full, callers are told to try again.

    Parameters
    ----------
    what
        Kind of the requests, for messages.
    most
        Requests that may be in the queue.
    settings
        Say how long a request may wait for its turn.
    """

    def __init__(self, what: str, most: int, settings: ServingSettings) -> None:
        self._what = what
        self._most = most
        self._seconds = settings.queue_seconds
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=what)
        self.queued = 0

    async def submit(self, work: Callable[[], Any]) -> Any:
        """Do work after the work that waits already (raises Refused)."""
        if self.queued >= self._most:
            message = f"{self.queued} {self._what} requests are waiting already: try again"
            raise Refused(503, "busy", message, retry_after=1)
        self.queued += 1
        job = self._threads.submit(work)
        try:
            future = asyncio.wrap_future(job)
            done, _ = await asyncio.wait({future}, timeout=self._seconds)
            if not done and job.cancel():
                waited = f"{self._seconds:g} seconds"
                raise Refused(503, "busy", f"timed out after {waited} in the queue; retry", retry_after=1)
            return await future
        finally:
            job.cancel()  # work that nobody waits for any more; what has begun goes on
            self.queued -= 1

    def close(self) -> None:
        """Finish the work that waits."""
        self._threads.shutdown()
