"""Where independent pieces of work run: in this process, or on Ray when they are long or a cluster is there."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

if not os.environ.get("RAY_ADDRESS"):
    # Ray reads this when it is imported. A local Ray would else take the machine's outer address and listen on all.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

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
        starting those takes about ten seconds.

    Examples
    --------
    >>> map_tasks(pow, [2, 3], shared=2)
    [4, 9]
    """
    if executor == "local":
        return [function(item, shared) for item in items]
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
    import ray

    if ray.is_initialized():
        yield
        return
    start_ray(log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(**options: Any) -> None:
    """Connect to the cluster in `RAY_ADDRESS`, or start a Ray on the loopback address only, without dashboard.

    Parameters
    ----------
    options
        Further options of `ray.init`, in both cases.
    """
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(**options)
    else:
        ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **options)
