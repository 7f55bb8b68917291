"""The bounded queue before a thread."""

import asyncio
import threading

import pytest

from ml_platform.serving.bounded_worker import BoundedWorker
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.settings import ServingSettings


def test_work_that_nobody_waits_for_any_more_is_not_done_and_leaves_the_queue() -> None:
    begun, release = threading.Event(), threading.Event()
    done: list[str] = []

    def hold() -> None:
        begun.set()
        release.wait()
        done.append("held")

    async def ask() -> None:
        turns = BoundedWorker("large", 2, ServingSettings())
        held = asyncio.create_task(turns.submit(hold))
        await asyncio.to_thread(begun.wait)
        left = asyncio.create_task(turns.submit(lambda: done.append("left")))
        await asyncio.sleep(0)  # it is in the queue now
        with pytest.raises(Refused, match="2 large requests are waiting already"):
            await turns.submit(lambda: done.append("too many"))
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        stays = asyncio.create_task(turns.submit(lambda: done.append("stays")))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(held, stays)
        assert turns.queued == 0
        turns.close()

    asyncio.run(ask())
    assert done == ["held", "stays"]
