"""`python -m ml_platform.serving.ray_app` as people run it, telling meanwhile in a file which replicas there are.

Arguments: the configuration of Ray Serve, and the file.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_platform.serving.ray_app import main


def one_at_a_time(function: Callable[[], Any]) -> Callable[[], Any]:
    """Let one thread call a function at once: of two that ask for Serve's status, Ray raises ValueError to one.

    It pickles the autoscaling policy by a table of the process, into which both enter it and from which both take it.
    """
    lock = threading.Lock()

    def call() -> Any:
        with lock:
            return function()

    return call


def tell_states(file: Path) -> None:
    """Write how many replicas are in which state, each time it has changed."""
    import ray
    from ray import serve

    told = None
    while True:
        time.sleep(0.1)
        if not ray.is_initialized():
            continue
        try:
            status = serve.status()
        except (ray.exceptions.RayError, serve.exceptions.RayServeException) as error:  # it starts or ends just now
            print(f"the replicas' states are not to be had: {type(error).__name__}", file=sys.stderr)
            continue
        states: Counter[str] = Counter()
        for application in status.applications.values():
            for deployment in application.deployments.values():
                states.update(deployment.replica_states)
        if states != told:
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps(states))
            fresh.rename(file)
            told = states


if __name__ == "__main__":
    import ray.serve  # by one thread: two that import it at once get in each other's way

    ray.serve.status = one_at_a_time(ray.serve.status)
    threading.Thread(target=tell_states, args=(Path(sys.argv[2]),), daemon=True).start()
    sys.exit(main(sys.argv[1:2]))
