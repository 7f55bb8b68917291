"""Whether the inference log can be written: what failed is told, alerted and tried again until it works."""

import asyncio
import logging
import time

from ml_platform.segment_log.segments import LogUnavailable, SegmentLog
from ml_platform.serving.models.release_alerts import ReleaseAlerts

LOOK_SECONDS = 1.0  # between two tries to write, and between two lines of the log about it

logger = logging.getLogger("serving")


class LogHealth:
    """Remembers the streams of a log that could not be written last. One per worker.

    `failing` has the reason of each, for `/health/ready`. A worker that is not ready gets no requests by which it could
    find out that there is space again, so it tries by itself.
    """

    def __init__(self, log: SegmentLog, alerts: ReleaseAlerts) -> None:
        self.failing: dict[str, str] = {}
        self._log = log
        self._alerts = alerts
        self._alerted: set[str] = set()
        self._told = -LOOK_SECONDS
        self._requests = 0

    def note_failure(self, stream: str, error: LogUnavailable, said: str) -> None:
        """Note that a request could not be logged, and log an error at most once a second."""
        self.failing = {**self.failing, stream: error.reason}
        self._requests += 1
        if (now := time.monotonic()) - self._told >= LOOK_SECONDS:
            logger.error("%s: %d requests since the last such line were %s: %s", stream, self._requests, said, error)
            self._told, self._requests = now, 0

    async def watch(self) -> None:
        """Raise alerts, and try streams that failed again, until cancelled."""
        self._alerted |= await asyncio.to_thread(self._alerts.failed_logs)  # by workers that are gone, maybe
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.failing or self._alerted:
                await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Try each stream that fails; raise an alert for each that began to, and one for each that works again."""
        for stream in {*self.failing, *self._alerted}:
            if stream not in self._alerted:
                self._alerts.log_failed(stream, self.failing[stream])
                self._alerted.add(stream)
            try:
                self._log.probe(stream)
            except LogUnavailable:
                continue
            if stream in self.failing:
                logger.warning("%s: its log can be written again", stream)
            self.failing = {name: why for name, why in self.failing.items() if name != stream}
            self._alerted.discard(stream)
            self._alerts.log_recovered(stream)
