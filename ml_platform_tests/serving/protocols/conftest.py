"""What every protocol is compared with."""

from typing import Any

import httpx
import pytest

from ml_platform_tests.serving.protocols.two_rows import ROWS
from ml_platform_tests.serving.releases import MODEL


@pytest.fixture
def wanted(client: httpx.Client) -> list[dict[str, Any]]:
    """What our own route answers to the two rows."""
    found: list[dict[str, Any]] = client.post(f"/predict/{MODEL}", json={"rows": ROWS}).json()["predictions"]
    assert found[0]["probability"] != found[1]["probability"]
    return found
