"""Markdown that the generated pages are made of."""

import re
from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """Return a text as the cell of a table: one line, its bars escaped, and `<` outside of code no tag.

    Examples
    --------
    >>> cell("one | two\\nthree"), cell("`<a>` or <b>")
    ('one \\\\| two three', '`<a>` or &lt;b>')
    """
    parts = re.split("(`[^`]*`)", " ".join(text.split()).replace("|", "\\|"))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or nothing for no rows.

    Examples
    --------
    >>> table(["a", "b"], [["1", "2"]])
    '| a | b |\\n| --- | --- |\\n| 1 | 2 |\\n'
    """
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *lines]) + "\n"


def code(text: str) -> str:
    """Return a text as code within a line.

    Examples
    --------
    >>> code("a"), code("a `b`"), code("")
    ('`a`', '`` a `b` ``', '')
    """
    if not text:
        return ""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def page(title: str, *parts: str) -> str:
    """Return a page of a title and parts; empty parts are left out."""
    return "\n\n".join([f"# {title}", *(part.strip() for part in parts if part.strip())]) + "\n"
