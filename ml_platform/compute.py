"""Where independent pieces of work run: in this process, or on Ray when they are long or a cluster is there."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from ml_platform.distribution import extra
from ml_platform.local_ray import ray_session

Executor = Literal["local", "ray"]
Item = TypeVar("Item")
Result = TypeVar("Result")


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
