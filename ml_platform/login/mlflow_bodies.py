"""What the body of a request to MLflow may not say below the role admin: where on the server files are kept.

MLflow's server writes an experiment's uploads to the `artifact_location` that whoever made it chose: any folder or
bucket that the platform's user can write. It reads a model version's files from its `source`, and a trace's from a tag.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

LARGEST: Final = 8 * 2**20  # bytes of a body that is read
_READ = re.compile(
    r"/(?:ajax-)?api/\d+\.\d+/mlflow/(?:experiments/[^/]+|runs/create|logged-models|model-versions/[^/]+|traces(?:/.*)?)"
)
# In protobuf's JSON a field goes by its own name and by the same in camelCase: both without what is no letter.
_PLACES: Final = frozenset(
    {"artifactlocation", "artifacturi", "artifactroot", "defaultartifactroot", "storagelocation"}
)
_TAGS: Final = frozenset({"mlflow.artifactLocation", "mlflow.trace.archiveLocation"})
_SOURCES: Final = frozenset({"runs", "models", "mlflow-artifacts", "home-artifacts", "file"})


class PlaceRefused(ValueError):
    """A body that names a place where MLflow's server would write or read for whoever sent it."""


class BodyRefused(ValueError):
    """A body that cannot be read."""


def is_read(method: str, path: str) -> bool:
    """Whether the body of a request is read before it is passed on.

    Examples
    --------
    >>> is_read("POST", "/ajax-api/2.0/mlflow/experiments/create"), is_read("POST", "/api/2.0/mlflow/runs/log-batch")
    (True, False)
    """
    return method in {"POST", "PATCH", "PUT"} and _READ.fullmatch(path) is not None


def checked(body: bytes) -> bytes:
    """The body written anew, so that what was judged is what MLflow reads, whatever duplicates or encodings there were.

    Raises
    ------
    PlaceRefused
        When it names a place of the server's.
    BodyRefused
        When it is no JSON object.

    Examples
    --------
    >>> checked(b'{"name": "mine", "name": "yours"}')
    b'{"name": "yours"}'
    """
    if not body.strip():
        return b"{}"
    try:
        content = json.loads(body)
        if isinstance(content, str):  # as older clients send it, and MLflow still reads it
            content = json.loads(content)
        if not isinstance(content, dict):
            raise BodyRefused("wanted a JSON object")
        _check(content)
        return json.dumps(content).encode()
    except RecursionError:
        raise BodyRefused("the body is nested too deeply") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise BodyRefused("the body is not JSON") from None


def _check(content: dict[str, Any]) -> None:
    for name, value in content.items():
        if re.sub("[^a-z]", "", name.lower()) in _PLACES and value not in ("", None):
            raise PlaceRefused(f"{name} takes the role admin: leave it out, and files go where the platform keeps them")
    source = content.get("source")
    if isinstance(source, str) and not _is_ours(source):
        raise PlaceRefused(
            "a source elsewhere takes the role admin: register what a run has logged, as runs:/… or models:/…"
        )
    for tag in _tags(content):
        if tag in _TAGS:
            raise PlaceRefused(f"the tag {tag} is set by MLflow alone")


def _is_ours(source: str) -> bool:
    """Whether MLflow itself holds a source to the run or the logged model that the version is of."""
    scheme, colon, rest = source.partition(":")
    is_of_host = scheme.lower() == "file" and rest.startswith("//") and not rest.startswith("///")
    return not colon or (scheme.lower() in _SOURCES and not is_of_host)


def _tags(content: Any) -> Iterator[str]:
    """Whatever may be a tag's name, however deep: names of members, and what members called `key` hold."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            if isinstance(value.get("key"), str):
                yield value["key"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
