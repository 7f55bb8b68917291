"""Where scored rows go: a table, by one commit that names the parts' files, or one file that is there whole or not."""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from uuid import uuid4

import polars as pl
from deltalake.transaction import AddAction, create_table_with_add_actions

from ml_platform.inference.parts import Files, PartResult, dictionary_columns
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.ingestion.ingest import QUARANTINE, quarantine_of
from ml_platform.lake.names import is_table, literal
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.tables import Lake
from ml_platform.scoring.sources import Source

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Mode = Literal["replace", "append"]
_SUFFIXES = (".parquet", ".csv")
_PARTITION = "source_id"


Stamp = tuple[int, int]  # size and time of a file


class Stamps(NamedTuple):
    """Of the files of a scoring: its scored rows, and its refused ones; None without."""

    scored: Stamp | None = None
    refused: Stamp | None = None


NO_FILES = Stamps()


class OutputExists(ValueError):
    """What is to be written is there already, and is not of the same scoring."""


class Output(Protocol):
    """Where a scoring's rows go."""

    def folder(self, job: Path) -> tuple[str, Files]:
        """Where the parts' files are written, given the scoring's own folder."""
        ...

    def schema(self, empty: pl.DataFrame) -> pl.DataFrame:
        """The columns that there are in the end, given those of the parts' files."""
        ...

    def check(self, empty: pl.DataFrame) -> None:
        """Refuse, before anything is scored, what could not take such rows (raises OutputExists, SchemaMismatch)."""
        ...

    def done(self, run: str, before: PartResult | None) -> int | None:
        """Rows of a scoring that are there already, whole; None when they are not.

        `before` is what became of the rows when it ended; None when that is not known.
        """
        ...

    def commit(self, results: Sequence[PartResult], empty: pl.DataFrame, run: str, parts: tuple[str, Files]) -> str:
        """Make the rows visible, all at once; returns where they are, in words."""
        ...

    @property
    def quarantine(self) -> str:
        """Where refused rows go."""
        ...


@dataclass(frozen=True)
class TableOutput:
    """A table of scored rows, partitioned by their source, of which a digest is in the paths of the files.

    Attributes
    ----------
    lake, table
        The table.
    source
        Name of the source.
    mode
        `replace` puts rows in the place of those that the same source gave before, `append` beside them.
    """

    lake: Lake
    table: str
    source: str
    mode: Mode

    @property
    def quarantine(self) -> str:
        """Table of the refused rows."""
        return quarantine_of(self.table)

    @property
    def source_id(self) -> str:
        """Value of the partition column: names of sources have characters that paths do not."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:12]

    @property
    def _partition(self) -> str:
        return f"{_PARTITION}={self.source_id}"

    def schema(self, empty: pl.DataFrame) -> pl.DataFrame:
        """See `Output.schema`."""
        return empty.with_columns(pl.lit(self.source_id).alias(_PARTITION))

    def folder(self, job: Path) -> tuple[str, Files]:  # noqa: ARG002 - as the protocol
        """The table's own folder: a commit then only names the files."""
        if self.lake.is_local:
            return f"{self.lake.location(self.table)}/{self._partition}", Files()
        return self._partition, Files(self.lake.location(self.table), self.lake.storage_options)

    def check(self, empty: pl.DataFrame) -> None:
        """See `Output.check`."""
        if not self.lake.exists(self.table):
            return
        known = self.lake.schema(self.table)
        unlike = [
            f"column '{name}' is {known[name]} there, {dtype} here"
            for name, dtype in empty.schema.items()
            if name in known and known[name] != dtype
        ]
        if unlike:
            raise SchemaMismatch(f"Table '{self.table}'", unlike, "Say another table after --to, or other columns.")

    def done(self, run: str, before: PartResult | None) -> int | None:
        """See `Output.done`."""
        if not self.lake.exists(self.table):
            return None
        if before is not None and before.refused and not self.lake.exists(self.quarantine):
            return None
        self._check_own()
        of_source = pl.col(_PARTITION) == self.source_id
        counts = (
            self.lake.read(self.table)
            .filter(of_source)
            .select((pl.col("run") == run).sum().alias("own"), pl.len().alias("all"))
            .collect()
        )
        own, every = counts.row(0)
        committed = self.lake.last_app_version(self.table, f"score/{run}") is not None
        if not committed or (self.mode == "replace" and own != every):
            return None
        is_none_wanted = before is not None and not before.scored  # all were refused
        return int(own) if own or not every or is_none_wanted else None

    def _check_own(self) -> None:
        """Refuse a table whose rows are no scored ones (raises OutputExists)."""
        if list(self.lake.snapshot(self.table).metadata().partition_columns) != [_PARTITION]:
            raise OutputExists(
                f"the table {self.table} is there and was not made by `ml-platform score`: its rows would be mixed "
                "with scores; say another one after --to"
            )

    def commit(self, results: Sequence[PartResult], empty: pl.DataFrame, run: str, parts: tuple[str, Files]) -> str:
        """See `Output.commit`."""
        import pyarrow.parquet as pq
        from deltalake import Schema

        folder, files = parts
        system, adds = files.system(), list[AddAction]()
        for result in results:
            if result.path is not None:
                with system.open_input_file(f"{folder}/{result.path}" if folder else result.path) as opened:
                    statistics = _statistics(pq.read_metadata(opened))
                adds.append(
                    AddAction(
                        path=f"{self._partition}/{result.path}",
                        size=result.size,
                        partition_values={_PARTITION: self.source_id},
                        modification_time=int(time.time() * 1000),
                        data_change=True,
                        stats=json.dumps(statistics),
                    )
                )
        schema = Schema.from_arrow(empty.to_arrow(compat_level=pl.CompatLevel.oldest()).schema)
        transaction = (f"score/{run}", 1)

        def attempt() -> int:
            if not self.lake.exists(self.table):
                create_table_with_add_actions(
                    self.lake.location(self.table), schema, adds, mode="error", partition_by=[_PARTITION],
                    storage_options=self.lake.storage_options,
                    commit_properties=commits.properties(transaction, rebased=False),
                )  # fmt: skip
                return self.lake.version(self.table)
            if set(empty.columns) - set(self.lake.schema(self.table)):
                self.lake.append(self.table, empty, add_columns=True)
            target = self.lake.snapshot(self.table)
            target.create_write_transaction(
                list(adds),
                mode="overwrite" if self.mode == "replace" else "append",
                schema=target.schema(),
                partition_by=[_PARTITION],
                partition_filters=[(_PARTITION, "=", self.source_id)] if self.mode == "replace" else None,
                commit_properties=commits.properties(transaction, rebased=self.mode == "append"),
                post_commithook_properties=commits.HOOKS,
            )
            return self.lake.version(self.table)

        version = self.lake.retried(self.table, "score into", attempt)
        return f"{self.table}, version {version}"

    def where(self, scored_at: datetime) -> str:
        """Delta predicate of the refused rows that those of a scoring replace: the source's, or its own of a start."""
        of_source = f"source = {literal(self.source)}"
        if self.mode == "replace":
            return of_source
        return f"{of_source} AND quarantined_at = {literal(scored_at.astimezone(UTC).isoformat())}"


@dataclass(frozen=True)
class FileOutput:
    """One Parquet or CSV file.

    Attributes
    ----------
    path
        The file.
    overwrite
        Whether a file that is there may be replaced.
    stamps
        Of what the same scoring wrote before, if it did.
    note
        Takes the stamps of the files before they appear.
    """

    path: Path
    overwrite: bool
    stamps: Stamps = NO_FILES
    note: Callable[[Stamps], None] = lambda _stamps: None

    @property
    def quarantine(self) -> str:
        """File of the refused rows."""
        return str(self.path.with_name(f"{self.path.stem}.refused{self.path.suffix}"))

    def folder(self, job: Path) -> tuple[str, Files]:
        """A folder of the scoring's own."""
        return str(job / "scored"), Files()

    def schema(self, empty: pl.DataFrame) -> pl.DataFrame:
        """See `Output.schema`."""
        return empty

    def check(self, empty: pl.DataFrame) -> None:  # noqa: ARG002 - as the protocol
        """See `Output.check`."""
        for path, own, what in (
            (self.path, self.stamps.scored, ""),
            (Path(self.quarantine), self.stamps.refused, ", where refused rows go,"),
        ):
            if os.path.lexists(path) and (own is None or stamp_of(path) != own) and not self.overwrite:
                raise OutputExists(
                    f"{path}{what} is there already: say --overwrite to replace it, or another file after --to"
                )
        if not self.path.parent.is_dir():
            raise OutputExists(f"there is no folder {self.path.parent} for {self.path.name}: make it first")

    def done(self, run: str, before: PartResult | None) -> int | None:  # noqa: ARG002 - as the protocol
        """See `Output.done`."""
        if before is None or self.stamps.scored is None or self.stamps.scored != stamp_of(self.path):
            return None
        if before.refused and self.stamps.refused != stamp_of(Path(self.quarantine)):
            return None
        return before.scored

    def commit(self, results: Sequence[PartResult], empty: pl.DataFrame, run: str, parts: tuple[str, Files]) -> str:
        """See `Output.commit`."""
        del run  # it is in the rows
        folder, _ = parts

        def frames() -> Iterator[pl.DataFrame]:
            yield empty
            for result in sorted(results, key=lambda one: one.number):
                if result.path is not None:
                    yield from _read_slowly(Path(folder) / result.path)

        refused = [result.refused_rows for result in results if result.refused_rows]
        kept = Path(self.quarantine)
        with _staged(self.path) as scored_file, _staged(kept) as refused_file:
            _write(scored_file, frames())
            if refused:
                empty_refused = pl.DataFrame(schema=QUARANTINE)
                _write(refused_file, (empty_refused, *(pl.read_parquet(io.BytesIO(rows)) for rows in refused)))
            self.note(Stamps(stamp_of(scored_file), stamp_of(refused_file)))
            if refused:
                os.replace(refused_file, kept)
            else:
                kept.unlink(missing_ok=True)  # of an earlier scoring, as `check` saw to
            os.replace(scored_file, self.path)
        return str(self.path)


def find_output(
    lake: Lake, text: str, source: Source, label: str, mode: Mode, *, overwrite: bool
) -> TableOutput | FileOutput:
    """Find what a text names: a table of the lake, or a file, for a source's rows under a label.

    Raises
    ------
    ValueError
        When it is neither, or would take the place of something that is no output: the source, or the lake's own.
    """
    path = Path(text).expanduser()
    if path.suffix.lower() in _SUFFIXES:
        output = FileOutput(path.resolve(), overwrite)
        for written in (output.path, Path(output.quarantine)):
            if source.has(written):
                raise ValueError(f"{text}: {written} is of the source itself; say another file after --to")
        if lake.is_local and output.path.is_relative_to(Path(lake.uri).resolve()):
            raise ValueError(f"{text}: the folder {lake.uri} is the lake's own; say another file after --to")
        return output
    if is_table(text) and not path.suffix:
        if text.partition("/")[0] in ("raw", "features", "predictions", "quarantine", "governance", "training_sets"):
            raise ValueError(
                f"{text}: tables of that schema are the platform's own; scores go to one like scores/orders"
            )
        if source.kind == "table" and source.identity["table"] == text:
            raise ValueError(f"{text} is the source itself; say another table after --to")
        return TableOutput(lake, text, label, mode)
    raise ValueError(
        f"{text}: scored rows go to a table, as in scores/orders, or to a file that ends in {' or '.join(_SUFFIXES)}"
    )


def stamp_of(path: Path) -> Stamp | None:
    """Size and time of a file; None when it is gone."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Give the name under which a file is written until it is whole."""
    staged = path.with_name(f".{path.stem}-{uuid4().hex}{path.suffix}")
    try:
        yield staged
    finally:
        staged.unlink(missing_ok=True)


def _write(path: Path, frames: Iterable[pl.DataFrame]) -> None:
    """Write frames of one schema to a file, one at least."""
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".csv":
        with path.open("wb") as file:
            for number, frame in enumerate(frames):
                _flat(frame).write_csv(file, include_header=number == 0)
    else:
        writer: pq.ParquetWriter | None = None
        for frame in frames:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=dictionary_columns(frame.schema))
            if table.num_rows:
                writer.write_table(table)
        if writer is not None:
            writer.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists and structs as JSON, since CSV has neither; null stays empty."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    return frame.with_columns(
        pl.when(pl.col(name).is_not_null())
        .then(pl.struct(pl.col(name)).struct.json_encode().str.replace(r'^\{"[^"]*":', "").str.replace(r"\}$", ""))
        .alias(name)
        for name in nested
    )


def _read_slowly(path: Path) -> Iterator[pl.DataFrame]:
    """Read a file a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield pl.DataFrame(file.read_row_group(number))


def _statistics(metadata: "pq.FileMetaData") -> dict[str, Any]:
    """What Delta's log keeps of a file: rows, nulls, and the ends of whole numbers and instants."""
    nulls: dict[str, int] = {}
    least: dict[str, Any] = {}
    most: dict[str, Any] = {}
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            name, found = column.path_in_schema, column.statistics
            if "." in name or found is None or found.null_count is None:
                continue
            nulls[name] = nulls.get(name, 0) + found.null_count
            if found.has_min_max and isinstance(found.min, int | datetime) and not isinstance(found.min, bool):
                least[name] = min(least.get(name, found.min), found.min)
                most[name] = max(most.get(name, found.max), found.max)
    return {
        "numRecords": metadata.num_rows,
        "minValues": {name: _told(value) for name, value in least.items()},
        "maxValues": {name: _told(value) for name, value in most.items()},
        "nullCount": nulls,
    }


def _told(value: Any) -> Any:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value
