"""Paths of requests: one spelling for each, so that what is judged is what the server behind takes it for."""

import re
from urllib.parse import unquote

_RAW = re.compile(
    r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@|^{}\[\]-]|%[0-9A-Fa-f]{2})*(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@|^{}\[\]-]|%[0-9A-Fa-f]{2})*)*"
)
_MOST = 8192


class PathRefused(ValueError):
    """A path with more than one reading."""


def plain_path(raw: str) -> str:
    """The decoded path of a request's raw one.

    Raises
    ------
    PathRefused
        For empty segments, `.` and `..`, also encoded, slashes, backslashes and control characters in encoded form,
        a second layer of encoding, and text that is not UTF-8: servers disagree on what such paths are.

    Examples
    --------
    >>> plain_path("/mlflow/api/2.0/mlflow-artifacts/artifacts/a%20b.txt")
    '/mlflow/api/2.0/mlflow-artifacts/artifacts/a b.txt'
    >>> plain_path("/mlflow/%2e%2e/dagster")
    Traceback (most recent call last):
    ml_platform.login.paths.PathRefused: the path has a segment '..'
    """
    if len(raw) > _MOST or _RAW.fullmatch(raw) is None:
        raise PathRefused("the path has characters that must be encoded, or is too long")
    segments = raw.split("/")[1:]
    decoded = []
    for number, segment in enumerate(segments):
        try:
            text = unquote(segment, errors="strict")
        except UnicodeDecodeError:
            raise PathRefused("the path is not UTF-8") from None
        if not segment and number < len(segments) - 1:
            raise PathRefused("the path has an empty segment")
        if text in {".", ".."}:
            raise PathRefused(f"the path has a segment '{text}'")
        if re.search(r"[/\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}", text):
            raise PathRefused("the path has an encoded slash, backslash, control character or percent sign")
        decoded.append(text)
    return "/" + "/".join(decoded)


def local_target(text: str | None) -> str:
    """Where to go after signing in: a path of this server with its query, `/` for anything else.

    Examples
    --------
    >>> local_target("/dagster/runs?q=1"), local_target("//evil.example"), local_target("https://evil.example/")
    ('/dagster/runs?q=1', '/', '/')
    """
    if not text or len(text) > _MOST or re.search(r"[\x00-\x20\x7f\\]", text):
        return "/"
    path = re.split(r"[?#]", text, maxsplit=1)[0]  # not by urlsplit, for which `///evil.example` has no host
    try:
        plain_path(path)
    except PathRefused:
        return "/"
    return "/" if path.startswith("/-/") else text
