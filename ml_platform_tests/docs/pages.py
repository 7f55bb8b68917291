"""The pages of the documentation, as the tests read them."""

import re
from pathlib import Path

from ml_platform_tests.paths import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
FENCE = re.compile(r"^[ \t]*```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


def pages() -> dict[str, str]:
    """Every page that was written by hand, the README and that of deploy/ included, by path."""
    paths = [*sorted(DOCS.rglob("*.md")), PROJECT_ROOT / "README.md", PROJECT_ROOT / "deploy" / "README.md"]
    return {path.relative_to(PROJECT_ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def text_of_all() -> str:
    """All of these pages."""
    return "\n".join(pages().values())


def blocks(language: str) -> list[tuple[str, str]]:
    """Blocks of code in a language: the page's path and the text."""
    return [
        (path, match["text"])
        for path, text in pages().items()
        for match in FENCE.finditer(text)
        if match["language"] == language
    ]


def code_files() -> list[Path]:
    """Python files of the engine and the app."""
    return [path for folder in ("ml_platform", "serving") for path in (PROJECT_ROOT / folder).rglob("*.py")]
