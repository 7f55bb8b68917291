"""Where independent pieces of work run: in this process, or on Ray when they are long or a cluster is there."""

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Generic, Literal, Protocol, TypeVar

from ml_platform.distribution import extra
from ml_platform.local_ray import ray_session

Executor = Literal["local", "ray"]
Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

RAY_CELLS = 20_000_000  # numbers of a task's matrix from which it lasts about ten seconds, and Ray's start pays


def map_tasks(
    function: Callable[[Item, Any], Result], items: Iterable[Item], *, shared: Any = None, executor: Executor = "local"
) -> list[Result]:
    """Call `function(item, shared)` for every item and return the results in the order of the items.

    Parameters
    ----------
    function
        A module's own function (Ray sends it by name), which depends on nothing but its arguments.
    items
        What differs from call to call; small.
    shared
        What all calls read, such as a matrix: sent once per machine, not once per item.
    executor
        `local` runs one after the other in this process: right for work of seconds, where libraries such as LightGBM
        use all cores themselves. `ray` spreads the calls, over the cluster in `RAY_ADDRESS` or over local processes;
        starting those takes about ten seconds, and it needs the extra `ray`.

    Examples
    --------
    >>> map_tasks(pow, [2, 3], shared=2)
    [4, 9]
    """
    if executor == "local":
        return [function(item, shared) for item in items]
    with extra("ray"):
        import ray

    with executor_session(executor):
        reference = ray.put(shared)
        remote = ray.remote(num_cpus=1)(function)
        results: list[Result] = ray.get([remote.remote(item, reference) for item in items])
        return results


class TaskPool(Protocol[Item_contra, Result_co]):
    """Tasks under way, which end one by one."""

    capacity: int
    """How many tasks run at once."""

    def submit(self, key: Hashable, item: Item_contra) -> None:
        """Start a task."""

    def wait(self) -> "tuple[Hashable, Result_co | Exception]":
        """Wait for the end of some task; return its key with its result, or with what it raised."""


@contextmanager
def task_pool(
    function: Callable[[Item, Any], Result], *, shared: Any, executor: Executor
) -> Iterator[TaskPool[Item, Result]]:
    """Open a pool of tasks `function(item, shared)`, of which the caller decides one by one what comes next.

    Parameters
    ----------
    function, shared, executor
        See `map_tasks`. In this process one task runs at a time, inside `wait`; on Ray one for each CPU of the cluster.

    Examples
    --------
    >>> with task_pool(pow, shared=2, executor="local") as pool:
    ...     pool.submit("three", 3)
    ...     pool.wait()
    ('three', 9)
    """
    if executor == "local":
        yield _LocalPool(function, shared)
        return
    with executor_session(executor):
        yield _RayPool(function, shared)


class _LocalPool(Generic[Item, Result]):
    def __init__(self, function: Callable[[Item, Any], Result], shared: Any) -> None:
        self.capacity = 1
        self._function, self._shared = function, shared
        self._waiting: deque[tuple[Hashable, Item]] = deque()

    def submit(self, key: Hashable, item: Item) -> None:
        self._waiting.append((key, item))

    def wait(self) -> tuple[Hashable, Result | Exception]:
        key, item = self._waiting.popleft()
        try:
            return key, self._function(item, self._shared)
        except Exception as error:  # noqa: BLE001 - the caller's to judge
            return key, error


class _RayPool(Generic[Item, Result]):
    def __init__(self, function: Callable[[Item, Any], Result], shared: Any) -> None:
        import ray

        self.capacity = max(1, int(ray.cluster_resources().get("CPU", 1)))
        # One attempt: what killed a worker, such as a lack of memory, would kill the next one too.
        self._remote = ray.remote(num_cpus=1, max_retries=0)(function)
        self._shared = ray.put(shared)
        self._running: dict[Any, Hashable] = {}

    def submit(self, key: Hashable, item: Item) -> None:
        self._running[self._remote.remote(item, self._shared)] = key

    def wait(self) -> tuple[Hashable, Result | Exception]:
        import ray

        [ended], _ = ray.wait(list(self._running), num_returns=1)
        key = self._running.pop(ended)
        try:
            result: Result = ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            return key, error.cause if isinstance(error.cause, Exception) else error
        except ray.exceptions.RayError as error:  # the worker died
            return key, error
        return key, result


def choose_executor(wanted: Literal["auto", "local", "ray"], *, cells: int) -> Executor:
    """Resolve `auto`: Ray where it is installed, and there is a cluster or a task is long.

    Parameters
    ----------
    wanted
        As the project says.
    cells
        Numbers in the matrix that each task reads; by their count and not by time, so that each run chooses the same.

    Examples
    --------
    >>> choose_executor("local", cells=10**9), choose_executor("ray", cells=1000)
    ('local', 'ray')
    """
    if wanted != "auto":
        return wanted
    is_worth_it = bool(os.environ.get("RAY_ADDRESS")) or cells >= RAY_CELLS
    return "ray" if is_worth_it and find_spec("ray") is not None else "local"


@contextmanager
def executor_session(executor: Executor) -> Iterator[None]:
    """Keep one executor running over several `map_tasks`; what was started here is stopped here.

    A local Ray listens on the loopback address only, without dashboard and without usage reports.
    """
    if executor == "local":
        yield
        return
    with extra("ray"):
        import ray

    if ray.is_initialized():
        yield
        return
    with ray_session(log_to_driver=False, logging_level="ERROR"):
        yield
