"""A thread that does one piece of work after another, behind a bounded queue."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serving.settings import ServingSettings
from serving.wire import Refused


class Turns:
    """Does in a thread of its own what would keep the event loop too long; what does not fit is told to come again."""

    def __init__(self, what: str, most: int, settings: ServingSettings) -> None:
        """Let at most so many requests of a sort wait."""
        self._what = what
        self._most = most
        self._seconds = settings.queue_seconds
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=what)
        self.queued = 0

    async def take(self, work: Callable[[], Any]) -> Any:
        """Do work after what waits already (raises Refused)."""
        if self.queued >= self._most:
            told = f"{self.queued} {self._what} requests are waiting already: come again"
            raise Refused(503, "busy", told, retry_after=1)
        self.queued += 1
        try:
            job = self._threads.submit(work)
            future = asyncio.wrap_future(job)
            done, _ = await asyncio.wait({future}, timeout=self._seconds)
            if not done and job.cancel():
                waited = f"{self._seconds:g} seconds"
                raise Refused(503, "busy", f"did not get its turn within {waited}: come again", retry_after=1)
            return await future
        finally:
            self.queued -= 1

    def close(self) -> None:
        """Finish what is waiting."""
        self._threads.shutdown()
