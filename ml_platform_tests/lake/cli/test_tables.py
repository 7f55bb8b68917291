"""`ml-platform tables`: what it lists, and an old version put back from the terminal."""

import json
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings


@pytest.fixture(autouse=True)
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))


def _tables(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tables", *arguments])


def _listed(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(_tables(*arguments, "--format", "json").stdout)


def test_tables_and_versions_are_listed_and_put_back(lake: Lake) -> None:
    for value in range(3):
        lake.replace("raw/x", pl.DataFrame({"value": [value]}))
    lake.append("raw/y", pl.DataFrame({"value": [1]}))
    assert [(row["table"], row["version"]) for row in _listed("list")] == [("raw/x", 2), ("raw/y", 0)]
    assert [row["version"] for row in _listed("history", "raw/x")] == [2, 1, 0]
    newest, *others = _listed("history", "raw/x", "--limit", "1")
    assert not others
    assert newest["writer"] == lake.history("raw/x")["writer"][0]

    restored = _tables("restore", "raw/x", "--version", "1")
    assert restored.stdout == "raw/x is restored, as version 3.\n"
    assert lake.read("raw/x").collect().item() == 1
    assert _tables("restore", "raw/x", "--as-of", "2999-01-01").exit_code == 0
    assert lake.read("raw/x", version=2).collect().item() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list"], "has no tables yet"),
        (["history", "raw/z"], "no table 'raw/z'"),
        (["history", "../z"], "A table is named schema/name"),
        (["restore", "raw/z", "--version", "1"], "raw/z was not restored: "),
        (["restore", "raw/y", "--version", "-1"], "'raw/y' has versions 0 to 0, version -1 was asked for"),
        (["restore", "raw/z"], "wants a version or an instant"),
        (["restore", "raw/z", "--as-of", "yesterday"], "like 2024-06-01"),
    ],
)
def test_a_mistake_is_answered_with_what_would_be_right(lake: Lake, arguments: list[str], message: str) -> None:
    if "raw/y" in arguments:
        lake.append("raw/y", pl.DataFrame({"value": [1]}))
    answer = _tables(*arguments)
    assert answer.exit_code == 1
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
