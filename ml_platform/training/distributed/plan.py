"""What workers are sent to train one model together: where their rows are, and how they are read and fitted."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_platform.registry.manifest import Feature, Label
from ml_platform.spec.families import Parameter
from ml_platform.training.data.cuts import RowRange
from ml_platform.training.data.stored_rows import StoredRows
from ml_platform.training.distributed.slices import Slice


@dataclass(frozen=True)
class Part:
    """Rows of one range: where they are, and how many."""

    rows: RowRange
    slices: tuple[Slice, ...]
    count: int


@dataclass(frozen=True)
class StopOn:
    """Rows on which the number of rounds is found, after training on all parts but the last.

    Attributes
    ----------
    part
        The rows.
    every
        Of so many of them one is taken.
    """

    part: Part
    every: int


@dataclass(frozen=True)
class FitPlan:
    """One fit over several workers.

    Attributes
    ----------
    stored
        The training set.
    family, params
        What is fitted.
    features, classes
        Columns of the matrix, and classes of a multiclass model.
    shards
        Of each worker its parts, one for each range of rows, in the same order.
    class_weights
        Weight of each class; None for one each.
    mean_weight
        Of all rows, with those of their classes; each is divided by it.
    stop_on
        To find the number of rounds by; None where `params` has it.
    monotone
        Sign of each feature, empty for none.
    cpus
        Of each worker.
    """

    stored: StoredRows
    family: str
    params: Mapping[str, Parameter]
    features: tuple[Feature, ...]
    classes: tuple[Label, ...]
    shards: tuple[tuple[Part, ...], ...]
    class_weights: tuple[float, ...] | None
    mean_weight: float
    stop_on: StopOn | None
    monotone: tuple[int, ...]
    cpus: int

    @property
    def class_count(self) -> int:
        """Classes of a classifier."""
        return len(self.classes) or 2
