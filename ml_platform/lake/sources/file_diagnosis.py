"""Finds out what is wrong with a file of JSON lines, and in which line, after a reader has failed."""

import codecs
import json


def why_not_json_lines(content: bytes) -> str | None:
    """Say which line is not a JSON object; None if it cannot be found.

    Examples
    --------
    >>> why_not_json_lines(b'{"id": 1}\\n[2]\\n')
    'line 2 is no JSON object: [2]'
    """
    if content.startswith(codecs.BOM_UTF8):
        return "it begins with a byte order mark: write it as UTF-8 without one"
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                raise ValueError
        except ValueError:
            return f"line {number} is no JSON object: {line[:80].decode(errors='replace')}"
    return None
