"""Programs of the system that tests need: without one they are skipped, and in continuous integration they fail."""

import os
import shutil
from typing import NoReturn

import pytest


def program(*names: str, package: str) -> str:
    """Path of the first of these programs that is installed; else the test ends here, saying what to install."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        lacking(f"{' or '.join(names)} is not installed: `apt install {package}`")
    return path


def lacking(message: str) -> NoReturn:
    """Skip the test, or fail it in continuous integration, which installs all that is needed."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(message)
    pytest.skip(message)
