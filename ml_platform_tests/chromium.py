"""A real browser for the tests that look at pages: the system's Chromium, driven by Playwright."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from ml_platform_tests.needs import program


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    chromium = program("chromium", "google-chrome", package="chromium")
    with sync_playwright() as playwright:
        # Inside a container and as root Chromium's own sandbox cannot start; the pages are our own. Names under
        # `example`, which no DNS knows, lead to this machine, as a hostile page's name can.
        # Newer browsers keep public pages from local servers; the servers must be safe in those that do not.
        arguments = [
            "--no-sandbox",
            "--host-resolver-rules=MAP *.example 127.0.0.1",
            "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
        ]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments, timeout=120_000)
        expect.set_options(timeout=120_000)
        yield browser
        browser.close()
