"""`%sql` and `%%sql` in a shell of IPython, over a lake."""

from collections.abc import Iterator

import polars as pl
import pytest
from IPython.core.interactiveshell import InteractiveShell

from ml_platform.lake.errors import TableNotFound
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings


@pytest.fixture
def shell(settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    lake.append("raw/readings", pl.DataFrame({"value": [1.0, 2.0]}))
    lake.append("raw/readings", pl.DataFrame({"value": [6.0]}))
    made = InteractiveShell()
    made.run_line_magic("load_ext", "ml_platform.notebooks")
    yield made
    InteractiveShell.clear_instance()


def test_a_line_and_a_cell_give_frames(shell: InteractiveShell) -> None:
    assert shell.run_line_magic("sql", "SELECT sum(value) FROM raw.readings").item() == 9
    assert shell.run_cell_magic("sql", "--version raw/readings=0", "SELECT sum(value) FROM raw.readings").item() == 3
    assert shell.run_cell_magic("sql", "--to total", "SELECT sum(value) AS s\nFROM raw.readings") is None
    assert shell.user_ns["total"].to_dicts() == [{"s": 9.0}]


@pytest.mark.parametrize(
    ("line", "cell", "message"),
    [
        ("", " ", "wanted a SELECT"),
        ("--as", "SELECT 1", "wanted %%sql .*; found '--as'"),
        ("--to", "SELECT 1", "found '--to'"),
        ("--to a-b", "SELECT 1", "wanted the name of a variable, found 'a-b'"),
        ("--version raw/readings", "SELECT 1", "wanted TABLE=NUMBER"),
    ],
)
def test_what_is_not_understood_is_told(shell: InteractiveShell, line: str, cell: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shell.run_cell_magic("sql", line, cell)


def test_errors_are_those_of_the_lake(shell: InteractiveShell) -> None:
    with pytest.raises(TableNotFound):
        shell.run_line_magic("sql", "SELECT * FROM raw.reading")
