"""An erasure that kills itself at its n-th step that changes something: `python -m … <home> <n>`."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_platform.features.online.erase import OnlineErasure
from ml_platform.governance.erasure import certificate, delta_log, forget, tables
from ml_platform.lake.storage import suppression
from ml_platform.settings import Settings
from ml_platform_tests.governance.erasure.world import customers_erasure


def main(home: str, last: int) -> None:
    """Run it."""
    steps = 0

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            done = function(*arguments, **options)
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return call

    for module, name in (
        (tables, "remove"),
        (tables, "scrub_log"),
        (delta_log, "replace_file"),
        (suppression, "replace_file"),
        (forget, "replace_file"),
        (forget, "erase_from_files"),
        (certificate, "replace_file"),
        (certificate, "record_event"),
        (OnlineErasure, "erase"),
    ):
        setattr(module, name, mortal(getattr(module, name)))
    customers_erasure(Settings(home=Path(home))).run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
