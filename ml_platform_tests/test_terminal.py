"""What is in data cannot steer the terminal that shows it."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.lake.cli.sql import Format, render
from ml_platform.lake.storage.tables import Lake
from ml_platform.printable import plain

EVIL = "a\x1b[2J\x1b]0;t\x07b\nforged row\r\x9b31m\u202egnp\u2028\x7f"


def test_escape_codes_line_ends_and_turned_text_are_escaped() -> None:
    assert plain(EVIL) == r"a\x1b[2J\x1b]0;t\x07b\nforged row\r\x9b31m\u202egnp\u2028\x7f"
    assert plain("Köln €, 日本 👩‍🔬") == "Köln €, 日本 👩‍🔬"
    assert plain("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_a_table_shows_each_row_on_its_lines_whatever_is_in_it() -> None:
    tame = pl.DataFrame({"x": ["a", "b"], "l": [["a"], []], "s": [{"k": "a"}, None], "n": [1, 2]})
    evil = pl.DataFrame({EVIL: [EVIL, "b"], "l": [[EVIL], []], "s": [{"k": EVIL}, None], "n": [1, 2]})
    shown = render(evil, Format.TABLE)
    assert shown.count("\n") == render(tame, Format.TABLE).count("\n")
    assert plain(shown, keep="\n") == shown
    assert json.loads(render(evil, Format.JSON))[0]["l"] == [EVIL]  # data stays as it is


@pytest.mark.parametrize("command", [["sql", "FROM raw.x"], ["tables", "list"], ["quarantine", "show", "raw/x"]])
def test_commands_print_no_escape_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setenv("ML_PLATFORM_LAKE_URI", str(tmp_path / "lake"))
    lake = Lake(str(tmp_path / "lake"))
    lake.append("raw/x", pl.DataFrame({"v": [EVIL]}))
    bad = {"day": None, "source": EVIL, "source_row": 0, "reasons": [EVIL], "row": json.dumps({"v": EVIL})}
    lake.append(
        "quarantine/raw/x",
        pl.DataFrame([bad], schema_overrides={"day": pl.Date, "source_row": pl.Int64}).with_columns(
            quarantined_at=pl.lit("2024-01-01T00:00:00Z").str.to_datetime(time_unit="us", time_zone="UTC")
        ),
    )
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert plain(result.output, keep="\n") == result.output
    assert "\nforged row" not in result.output


def test_errors_print_no_escape_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_LAKE_URI", str(tmp_path / "lake"))
    result = CliRunner().invoke(app, ["tables", "history", "raw/\x1b[31mx"])
    assert result.exit_code == 1
    assert "\x1b" not in result.output
