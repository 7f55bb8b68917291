"""What a pruning looks at, one thing at a time, and what it keeps."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal


@dataclass(frozen=True)
class Retention:
    """What stays, whatever else lets it go.

    Attributes
    ----------
    younger_than
        Bundles and runs younger than this.
    keep_last
        So many newest versions of each model, with their searches and trials.
    versions
        Whether bundles of registered versions may go: those stay registered without one, and say who removed it.
    served
        Whether those may go that have served.
    """

    younger_than: timedelta
    keep_last: int
    versions: bool = False
    served: bool = False


@dataclass(frozen=True)
class PruneItem:
    """A bundle, an MLflow run with its files and logged models, or what AutoML, a search or intervals have left.

    Attributes
    ----------
    kind, name
        What it is, and its digest, id or folder.
    model
        Whose; an empty text for a bundle of no version.
    about
        What it is of, in words.
    size
        Bytes of its files.
    keep
        Why it stays; an empty text for what may go.
    """

    kind: Literal["bundle", "run", "automl", "study", "intervals"]
    name: str
    model: str
    about: str
    size: int
    keep: str
