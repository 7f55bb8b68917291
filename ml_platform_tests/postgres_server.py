"""A PostgreSQL server of the tests' own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ml_platform_tests.needs import lacking
from ml_platform_tests.ports import free_port


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server, and give its URL; the test ends here, saying what to install, where there is none."""
    psycopg = pytest.importorskip("psycopg", reason="wants psycopg: pip install 'psycopg[binary]'")
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        lacking("a PostgreSQL server is not installed: `apt install postgresql`")
    user = None
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        user = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_name == "postgres"), "nobody")
    folder = tempfile.mkdtemp(prefix="pg-")
    if user:
        shutil.chown(folder, user)
    port = free_port()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, "user": user}
    subprocess.run([initdb, "-D", f"{folder}/data", "-U", "test", "-A", "trust", "-N"], check=True, **quiet)
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F", "-c", "timezone=UTC"]
    with subprocess.Popen([postgres, "-D", f"{folder}/data", *options], **quiet) as process:
        url = f"postgresql://test@127.0.0.1:{port}/postgres"
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    psycopg.connect(url, connect_timeout=10).close()
                    break
                except psycopg.OperationalError:
                    assert process.poll() is None, "the server did not start"
                    assert time.monotonic() < deadline, "the server does not answer"
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str | None:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)
