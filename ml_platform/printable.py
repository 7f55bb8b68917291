"""Texts that people or requests wrote, made safe to show in a log or terminal."""

import re

# Control characters, among them those of escape codes; marks that turn the direction of text; other line ends.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


# Characters that no text of people has: control characters but for tabs and line ends.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def check_text(text: str, what: str) -> None:
    """Refuse control characters in what a person wrote, which is kept and shown (raises ValueError).

    Examples
    --------
    >>> check_text("fine,\\nover two lines", "comment")
    >>> check_text("nul \\x00 here", "comment")
    Traceback (most recent call last):
    ValueError: comment: wanted text, found the control character U+0000 at place 5
    """
    if (control := _CONTROL.search(text)) is not None:
        place = control.start() + 1
        raise ValueError(f"{what}: wanted text, found the control character U+{ord(control[0]):04X} at place {place}")


def plain(text: str, *, keep: str = "") -> str:
    """Escape what a terminal would obey instead of show, so that data can neither colour, hide nor forge lines.

    Parameters
    ----------
    keep
        Characters that stay, such as the line ends of a table.

    Examples
    --------
    >>> print(plain("\\x1b[2Jall is well\\nrow 2"))
    \\x1b[2Jall is well\\nrow 2
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else ascii(match[0])[1:-1], text)
