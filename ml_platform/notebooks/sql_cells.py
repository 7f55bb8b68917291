"""Cells of SQL over the lake: `%load_ext ml_platform.notebooks`, then `%%sql` at the head of a cell.

    %%sql --as-of 2024-05-01 --to late
    SELECT carrier, count(*) AS flights FROM raw.flights GROUP BY carrier

The answer is a frame of Polars; `--to` gives it a name. `%sql SELECT …` is one line.
"""

import shlex
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.features.training_sets.notebook_api import open_lake

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

USAGE = "%%sql [--as-of INSTANT] [--version TABLE=NUMBER] [--to NAME]"


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Register `%sql` and `%%sql`; IPython calls this for `%load_ext ml_platform.notebooks`."""

    def sql(line: str, cell: str | None = None) -> pl.DataFrame | None:
        options, select = _read(line, cell)
        if select is None:
            raise ValueError(f"wanted a SELECT: {USAGE} and the query below, or %sql SELECT …")
        versions = {}
        for one in options["--version"]:
            table, separator, number = one.partition("=")
            if not separator or not number.isdigit():
                raise ValueError(f"--version: wanted TABLE=NUMBER, as raw/flights=3; found {one!r}")
            versions[table] = int(number)
        as_of = options["--as-of"][-1] if options["--as-of"] else None
        frame = open_lake().sql(select, versions=versions or None, as_of=as_of)
        if not options["--to"]:
            return frame
        name = options["--to"][-1]
        if not name.isidentifier():
            raise ValueError(f"--to: wanted the name of a variable, found {name!r}")
        shell.user_ns[name] = frame
        return None

    register: Any = shell.register_magic_function  # which is not typed
    register(sql, magic_kind="line_cell", magic_name="sql")


def _read(line: str, cell: str | None) -> tuple[dict[str, list[str]], str | None]:
    """Options of a magic's line, and the query."""
    options: dict[str, list[str]] = {"--as-of": [], "--version": [], "--to": []}
    if cell is None:
        return options, line.strip() or None
    words = shlex.split(line)
    while words:
        name = words.pop(0)
        if name not in options or not words:
            raise ValueError(f"wanted {USAGE}; found {line.strip()!r}")
        options[name].append(words.pop(0))
    return options, cell.strip() or None
