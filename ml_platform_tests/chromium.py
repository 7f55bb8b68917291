"""A real browser for the tests that look at pages: the system's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        missing = "Chromium is not installed: `apt install chromium`, or put one on the PATH"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        # Inside a container and as root Chromium's own sandbox cannot start; the pages are our own. Names under
        # `example`, which no DNS knows, lead to this machine, as a hostile page's name can.
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP *.example 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments, timeout=120_000)
        expect.set_options(timeout=120_000)
        yield browser
        browser.close()
