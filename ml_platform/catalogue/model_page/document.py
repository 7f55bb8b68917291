"""What the page of a model says, sentence by sentence: HTML and PDF show the same.

    <home>/catalogue/models/<model>.json     replaced by `governance/catalogue` and `ml-platform catalogue refresh`

The console shows the stored page without a lake; this imports nothing but the standard library and msgspec.
"""

import re
from pathlib import Path

import msgspec
from msgspec import Struct

from ml_platform.atomic_files import replace_file


class Group(Struct, kw_only=True, frozen=True):
    """How well the model does on a group of the rows on which it was judged."""

    name: str
    rows: int
    says: str
    share: float  # how far it is from the best to the worst group, 0 to 1


class Event(Struct, kw_only=True, frozen=True):
    """Something that changed."""

    at: str  # ISO 8601, UTC
    what: str
    by: str
    why: str


class ModelPage(Struct, kw_only=True, frozen=True):
    """The page of one model."""

    model: str
    made_at: str  # ISO 8601, UTC
    title: str
    description: str
    state: str  # what serves, or why nothing does
    is_serving: bool
    predicts: tuple[str, ...]
    quality: tuple[str, ...]
    measured: str  # on which rows, or why nothing was
    groups: tuple[Group, ...]
    groups_say: str
    looks_at: tuple[tuple[str, float], ...]  # what decides most, with its share of the importance
    limits: tuple[str, ...]
    words: str  # of the owner, from the file that `card` names
    week: tuple[tuple[str, str], ...]
    changes: tuple[Event, ...]
    owner: str
    review: str
    problems: tuple[str, ...] = ()


def page_path(home: Path, model: str) -> Path:
    """File of a model's stored page (raises ValueError for a name that is none of a model)."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", model) is None:
        raise ValueError(f"'{model[:80]}' is no name of a model")
    return home / "catalogue" / "models" / f"{model}.json"


def store_page(home: Path, page: ModelPage) -> None:
    """Put a page in place of the one before."""
    replace_file(page_path(home, page.model), msgspec.json.encode(page))


def read_page(home: Path, model: str) -> ModelPage:
    """The stored page of a model.

    Raises
    ------
    LookupError
        When there is none, or it was written by another engine; with what writes it.
    ValueError
        For a name that is none of a model.
    """
    path = page_path(home, model)
    remedy = "materialise governance/catalogue in Dagster, or run `ml-platform catalogue refresh`"
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelPage)
    except FileNotFoundError:
        raise LookupError(f"there is no page of '{model}' yet: {remedy}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LookupError(f"{path} cannot be read ({error}): {remedy}") from error
