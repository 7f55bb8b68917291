"""Public tables as files, where the machine has them beside the checkout."""

from pathlib import Path

import pytest

from ml_platform_tests.paths import PROJECT_ROOT

FOLDER = PROJECT_ROOT.parent / "shared" / "datasets"


def public_table(name: str) -> Path:
    """The file of a table; the test is skipped where it is not there."""
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path
