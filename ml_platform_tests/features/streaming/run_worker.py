"""A process that keeps streamed views, for tests that kill it: `python run_worker.py <folder> <servers>`."""

import signal
import sys
import threading
from pathlib import Path

from ml_platform.features.online.open import open_online_store
from ml_platform.features.streaming.worker import FeatureWorker
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.features.streaming.till_views import views


def main(folder: Path, servers: str, uri: str) -> int:
    """Run until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    lake = Lake(str(folder / "lake"))
    declared = views(folder / "views", servers=servers)
    worker = FeatureWorker(lake, declared, lambda: open_online_store(uri), folder / "streams")
    return worker.run(stop)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
