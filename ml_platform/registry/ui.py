"""Starts MLflow's own server over the platform's tracking store: `python -m ml_platform.registry.ui --port 5000`."""

import argparse
import os
import sys
from collections.abc import Sequence

from ml_platform.registry.artifacts import default_location
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Create the store if need be, then become the MLflow server: one worker, no job runners.

    The store is created by `Tracker`, under its lock: a server that did it would crash beside a first training run.
    """
    parser = argparse.ArgumentParser(prog="python -m ml_platform.registry.ui", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="port to listen on (%(default)s)")
    options = parser.parse_args(arguments)
    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    _ = Tracker(settings).client
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # two processes instead of a dozen
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", options.host, "--port", str(options.port)),
        *("--backend-store-uri", settings.tracking_uri, "--workers", "1"),
        *("--default-artifact-root", default_location(settings)),
    ]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
