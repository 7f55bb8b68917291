"""A source in parts, what all parts of a scoring share, and what became of each part."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import msgspec
import polars as pl

from ml_platform.features.point_in_time.lookup_index import LookupIndex
from ml_platform.inference.checked_rows import EXAMPLES
from ml_platform.inference.frame_scorer import ScoringOptions
from ml_platform.registry.manifest import Conformal

if TYPE_CHECKING:
    import pyarrow.fs

PART_ROWS = 500_000
ROW_GROUP = 131_072  # rows of a file that readers skip as a unit


@dataclass(frozen=True)
class Part:
    """A stretch of a source.

    Attributes
    ----------
    number
        From 0, in the source's order.
    path
        Parquet file: local, or within `Files.store`.
    row_groups
        Of the file; all when None.
    first_row
        Number of its first row in the source.
    rows
        How many it has.
    constants
        Columns that the file does not have, such as those of a Delta table's partitions.
    """

    number: int
    path: str
    row_groups: tuple[int, ...] | None
    first_row: int
    rows: int
    constants: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """Where files are: on local disks, or in an object store.

    Attributes
    ----------
    store
        URI of the store's root; None for local paths.
    options
        Its credentials and endpoints.
    """

    store: str | None = None
    options: Mapping[str, str] | None = None

    def system(self) -> "pyarrow.fs.FileSystem":
        """The file system."""
        import pyarrow.fs

        if self.store is None:
            return pyarrow.fs.LocalFileSystem()
        from deltalake.fs import DeltaStorageHandler

        return pyarrow.fs.PyFileSystem(DeltaStorageHandler(self.store, dict(self.options or {}) or None))


@dataclass(frozen=True)
class ScoredColumns:
    """Which columns scored rows have.

    Attributes
    ----------
    id_column
        Column of the source that identifies a row, written as the text `id`; None for none.
    keep
        Columns of the source that are written as they are.
    days
        Whether there is the column `date`, the UTC day of the instant.
    features
        Whether the model's features are written.
    explain
        How many features of each row's explanation are written; 0 for no explanation.
    interval
        Level of the intervals (`lower`, `upper`) or sets of classes (`prediction_set`) that are written; None for none.
    origin
        Whether there are `source`, `source_row` and `run`.
    """

    id_column: str | None = None
    keep: tuple[str, ...] = ()
    days: bool = False
    features: bool = False
    explain: int = 0
    interval: float | None = None
    origin: bool = True


@dataclass(frozen=True)
class ScoringTask:
    """What all parts of one scoring share.

    Attributes
    ----------
    run
        Name of the scoring, which no other has.
    bundle
        Files of the bundle by name.
    digest, version
        Of the bundle.
    lookups
        Index of each of the manifest's look-ups.
    options, columns
        How rows are read, and written.
    source
        Name of the source, kept with each row.
    conformal
        What intervals and sets are made of.
    scored_at
        Instant (UTC) that rows are marked with.
    wanted
        Columns of the source that are read, with the types of those that a file may lack.
    read, write
        Where the parts' files are, and where scored rows go.
    output
        Folder of the scored rows, within `write`.
    rows
        How many there are in all parts: whether a compiled scorer is worth its start.
    """

    run: str
    bundle: Mapping[str, bytes]
    digest: str
    version: int
    lookups: Sequence[LookupIndex]
    options: ScoringOptions
    columns: ScoredColumns
    source: str
    scored_at: datetime
    wanted: Mapping[str, pl.DataType]
    output: str
    conformal: Conformal | None = None
    read: Files = Files()
    write: Files = Files()
    rows: int = 0


class PartResult(msgspec.Struct, kw_only=True):
    """What became of a part's rows; always `read == scored + refused + outside`."""

    number: int
    path: str | None  # of the scored rows, within the output folder; None without any
    size: int = 0  # of the file in bytes
    read: int
    scored: int
    refused: int
    outside: int
    unscored: int = 0  # of those scored: without a finite score
    score_sum: float = 0.0  # of the finite ones
    refusals: dict[str, int] = {}  # values by `field: kind`
    flagged: dict[str, int] = {}
    examples: tuple[str, ...] = ()
    refused_rows: bytes = b""  # the refused rows as the quarantine keeps them, as Parquet
    id_hashes: bytes = b""  # of the scored rows, sorted (uint64)

    @classmethod
    def of_rows(cls, rows: int) -> Self:
        """Result of which no more is known than the rows that were scored."""
        return cls(number=-1, path=None, read=rows, scored=rows, refused=0, outside=0)


def total(results: Sequence[PartResult]) -> PartResult:
    """Add up the results of parts, in the order of the source."""
    ordered = sorted(results, key=lambda one: one.number)
    return PartResult(
        number=-1,
        path=None,
        size=sum(one.size for one in ordered),
        read=sum(one.read for one in ordered),
        scored=sum(one.scored for one in ordered),
        refused=sum(one.refused for one in ordered),
        outside=sum(one.outside for one in ordered),
        unscored=sum(one.unscored for one in ordered),
        score_sum=sum(one.score_sum for one in ordered),
        refusals=dict(sum((Counter(one.refusals) for one in ordered), Counter())),
        flagged=dict(sum((Counter(one.flagged) for one in ordered), Counter())),
        examples=tuple(example for one in ordered for example in one.examples)[:EXAMPLES],
    )


def dictionary_columns(schema: pl.Schema) -> list[str] | bool:
    """Columns of scored rows that a Parquet file should keep as a dictionary: texts that many rows share."""
    return [name for name, dtype in schema.items() if dtype == pl.String and name != "id"] or False
