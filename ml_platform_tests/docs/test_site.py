"""The documentation as `make docs` builds it: strictly, and without the network, for the build and for readers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform_tests.paths import PROJECT_ROOT

# What a browser fetches by itself; a link that somebody may follow is none of it.
FETCHED = re.compile(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]+)"|<link\b[^>]*\bhref="([^"]+)"')
NOWHERE = "http://127.0.0.1:9"  # the port of the discard service, where nothing listens


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 80
    for page in pages:
        fetched = {source or link for source, link in FETCHED.findall(page.read_text(encoding="utf-8"))}
        assert [address for address in fetched if re.match(r"(?:https?:)?//", address)] == [], page
        for address in fetched - {None}:
            path = address.split("?")[0].split("#")[0]
            if path and not path.startswith("data:"):
                target = site / path.lstrip("/") if path.startswith("/") else page.parent / path
                assert target.exists(), (page, address)
    for style in site.rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")) == [], style


@pytest.mark.slow
def test_what_is_made_from_the_code_is_there(site: Path) -> None:
    for name in (
        "settings",
        "commands",
        "model-keys",
        "http-api",
        "metrics",
        "dagster",
        "python/lake.storage.tables.Lake",
    ):
        assert (site / "reference" / name / "index.html").stat().st_size > 10_000, name
    found = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "ML_PLATFORM_HOME" in found
