"""The bounded queue before a thread."""

import asyncio
import threading
from functools import partial

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


def test_work_that_is_not_begun_in_time_is_refused_and_never_done() -> None:
    release = threading.Event()
    done: list[str] = []

    async def ask() -> None:
        worker = BoundedWorker("large", 5, ServingSettings(queue_seconds=0.01))
        worker._threads.submit(release.wait)  # no turn comes before it is set
        with pytest.raises(Refused, match=r"timed out after 0\.01 seconds in the queue; retry") as refused:
            await worker.submit(lambda: done.append("late"))
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "busy", 1)
        assert worker.queued == 0
        release.set()
        worker.close()

    asyncio.run(ask())
    assert done == []


def test_results_and_errors_are_the_callers_and_work_is_done_in_order() -> None:
    def fail() -> None:
        raise LookupError("no such row")

    async def ask() -> None:
        worker = BoundedWorker("large", 10, ServingSettings())
        order: list[int] = []
        jobs = [asyncio.create_task(worker.submit(partial(order.append, number))) for number in range(5)]
        with pytest.raises(LookupError, match="no such row"):
            await worker.submit(fail)
        await asyncio.gather(*jobs)
        assert order == [0, 1, 2, 3, 4]
        assert await worker.submit(lambda: 7) == 7
        assert worker.queued == 0
        worker.close()

    asyncio.run(ask())


def test_closing_finishes_the_work_that_waits() -> None:
    done: list[int] = []

    async def ask() -> None:
        worker = BoundedWorker("large", 10, ServingSettings())
        jobs = [asyncio.create_task(worker.submit(partial(done.append, number))) for number in range(5)]
        await asyncio.sleep(0)
        worker.close()
        await asyncio.gather(*jobs)

    asyncio.run(ask())
    assert done == [0, 1, 2, 3, 4]
