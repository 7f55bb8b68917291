"""What a `SourceTable` declares in YAML: where its rows come from, and their contract."""

import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import available_timezones

import dataframely as dy
import polars as pl
from pydantic import Field, model_validator

from ml_platform.instants import LONGEST
from ml_platform.lake.contracts.contract import ROW, like, one_of
from ml_platform.lake.contracts.conversion import NUMBERS
from ml_platform.lake.contracts.date_formats import problem_of
from ml_platform.lake.contracts.protection_check import check_protection
from ml_platform.lake.contracts.schema_evolution import Evolution
from ml_platform.lake.names import is_selector
from ml_platform.lake.sources.file_spec import Files
from ml_platform.project import current_project
from ml_platform.spec.protection import Protection, RuleOrText, TagName
from ml_platform.spec.types import Strict

_RESERVED = (ROW, "ingest_day", "ingest_file")
ColumnType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]


class ColumnSpec(Strict):
    """One column of a contract."""

    type: ColumnType = Field(description="Type of its values; timestamps are UTC.")
    key: bool = Field(False, description="Part of the primary key: unique, never missing.")
    nullable: bool = Field(False, description="Whether it may be missing.")
    minimum: float | None = Field(None, description="Smallest allowed value.")
    maximum: float | None = Field(None, description="Largest allowed value.")
    allowed: tuple[str, ...] | None = Field(None, min_length=1, description="The only values of a string.")
    pattern: str | None = Field(
        None,
        min_length=1,
        description="Regular expression that the whole of a string matches, in the syntax of Rust's regex: case counts "
        "unless it begins with (?i), a missing value is a matter of `nullable` alone.",
    )
    description: str = Field("", description="What it means.")
    unit: str | None = Field(None, description="Unit of its values.")
    format: str | None = Field(
        None,
        description="How texts are written: %d.%m.%Y of a date, %m/%d/%Y %H:%M of a timestamp (ISO 8601 when absent), "
        f"{', '.join(NUMBERS)} of a number.",
    )
    time_zone: str | None = Field(None, description="Time zone of timestamps without offset; UTC when absent.")
    tags: tuple[TagName, ...] = Field(
        (), description="Tags of the column, such as pii, for policies by tag (see Masks and filters)."
    )
    null_values: tuple[str, ...] = Field(
        (), description="Texts that mean a missing value in this column: NA among numbers, but not among countries."
    )

    entity: str | None = Field(
        None,
        min_length=1,
        description="Entity that the values identify, where the column has another name than in feature views: "
        "`customer` for a column cust_id. `ml-platform forget` removes rows by it.",
    )

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.build()
        return self

    def build(self, name: str | None = None) -> dy.Column:
        """Build the column of a `dataframely` schema, with its name if that is not the attribute's.

        Raises
        ------
        ValueError
            If an option does not fit the type.
        """
        if self.type not in ("integer", "number") and (self.minimum, self.maximum) != (None, None):
            raise ValueError(f"minimum and maximum are for integer and number; the type is {self.type}")
        if self.type != "string" and (self.allowed or self.pattern):
            raise ValueError(f"allowed and pattern are for string; the type is {self.type}")
        self._check_reading()
        common: dict[str, Any] = {
            "alias": name,
            "primary_key": self.key,
            "nullable": self.nullable and not self.key,
            "description": self.description,
            "metadata": self.model_dump(include={"unit", "format", "time_zone", "entity"}, exclude_none=True) or None,
        }
        whole = self.type == "integer"
        bounds: dict[str, Any] = {
            name: int(bound) if whole or bound.is_integer() else bound
            for name, bound in (("min", self.minimum), ("max", self.maximum))
            if bound is not None
        }
        builders: dict[str, Callable[[], dy.Column]] = {
            "string": lambda: dy.String(
                **common,
                check={
                    **(one_of(*self.allowed) if self.allowed else {}),
                    **(like(self.pattern) if self.pattern else {}),
                }
                or None,
            ),
            "integer": lambda: dy.Int64(**common, **bounds),
            "number": lambda: dy.Float64(**common, **bounds),
            "boolean": lambda: dy.Bool(**common),
            "date": lambda: dy.Date(**common),
            "timestamp": lambda: dy.Datetime(**common, time_zone="UTC"),
        }
        return builders[self.type]()

    def _check_reading(self) -> None:
        if self.time_zone is not None and (self.type != "timestamp" or self.time_zone not in available_timezones()):
            raise ValueError(f"time_zone is for timestamp, and like Europe/Berlin; found {self.type}, {self.time_zone}")
        if self.format is None:
            return
        if self.type in ("integer", "number") and self.format not in NUMBERS:
            raise ValueError(f"format of a number is one of {', '.join(NUMBERS)}; found {self.format}")
        if self.type in ("date", "timestamp") and (problem := problem_of(self.format, self.type)) is not None:
            raise ValueError(f"format of a {self.type} cannot be {self.format}: {problem}")
        if self.type in ("string", "boolean"):
            raise ValueError(f"format is for numbers, dates and timestamps; the type is {self.type}")


class FileSource(Files):
    """One file, read as a whole each time."""

    path: str = Field(description="File, relative to the project's root, or s3:// URI; $VARIABLES are replaced.")


class FolderSource(Files):
    """A folder to which files are added; each file is read once."""

    path: str = Field(description="Folder, relative to the project's root, or s3:// URI; $VARIABLES are replaced.")
    pattern: str = Field("*", description="Pattern of the files to read, e.g. *.csv or 2024-*/*.parquet.")
    quiet_seconds: float = Field(10, ge=0, description="A file is read when it has not changed for this long.")


class SqlSource(Strict):
    """A PostgreSQL database."""

    url_variable: str = Field(description="Environment variable that holds the URL: credentials do not belong in YAML.")
    query: str = Field(description="SELECT that gives the rows.")
    cursor: str | None = Field(
        None,
        description="Column (timestamp, date or integer) that rises with every change: only newer rows are read. "
        "Needs a primary key. When absent, everything is read each time.",
    )
    lookback_seconds: float = Field(
        0,
        ge=0,
        le=LONGEST.total_seconds(),
        description="How far before the newest row to read again, for transactions that commit late.",
    )
    batch_rows: int = Field(100_000, ge=1, description="Rows per commit.")


class SourceSpec(Strict):
    """A raw table whose rows come from files or a database."""

    name: str = Field(pattern=r"^raw/[a-z][a-z0-9_]*$", description="Table, raw/<name>.")
    description: str = Field(description="What a row is.")
    owner: str = Field(description="E-mail address, or team:<name>.")
    file: FileSource | None = Field(None, description="Rows from one file.")
    folder: FolderSource | None = Field(None, description="Rows from a folder that grows.")
    sql: SqlSource | None = Field(None, description="Rows from a PostgreSQL database.")
    contract: str | None = Field(None, description="`module:Class` of a dataframely schema; or give `columns`.")
    columns: dict[str, ColumnSpec] | None = Field(None, description="The contract, column by column.")
    unlisted: Literal["reject", "drop"] = Field(
        "reject", description="What to do with columns of the source that are not in the contract."
    )
    evolution: Evolution = Field("reject", description="What to do with columns that are new to the table.")
    partition_by: tuple[str, ...] = Field(
        (),
        description="Partition columns, with few values: reads that filter by them skip files.",
    )
    row_filter: RuleOrText | None = Field(None, description=Protection.model_fields["row_filter"].description)
    masks: dict[str, RuleOrText] = Field({}, description=Protection.model_fields["masks"].description)
    schedule: str | None = Field(None, description="Cron expression (UTC); a folder is watched without one.")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        given = [name for name in ("file", "folder", "sql") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"one of file, folder and sql is wanted, found {', '.join(given) or 'none'}")
        if (self.contract is None) == (self.columns is None):
            raise ValueError("one of contract (module:Class) and columns is wanted")
        if unknown := [name for name in self.partition_by if name not in self.schema_class().columns()]:
            raise ValueError(f"partition_by names no column of the contract: {', '.join(unknown)}")
        self._check_names(list(self.schema_class().columns()))
        if not self.protection.is_empty:
            check_protection(
                self.protection, {name: column.dtype for name, column in self.schema_class().columns().items()}
            )
        if self.sql and self.sql.cursor and not self.schema_class().primary_key():
            raise ValueError(
                "sql.cursor wants a primary key, so that a row that is read again replaces itself: say `key: true`"
            )
        return self

    def _check_names(self, names: list[str]) -> None:
        """Refuse names that no table can have, or that ingest needs itself."""
        if "" in names:
            raise ValueError("a column has no name: leave it out and say unlisted: drop, or name all columns by names:")
        same = Counter(map(str.lower, names))
        if again := [name for name in names if same[name.lower()] > 1]:
            raise ValueError(
                f"columns {', '.join(again)} differ in nothing but case, which tables do not tell apart: name all "
                "columns of the file by names:, or those of a query by AS"
            )
        _check_not_selectors(names)
        if reserved := [name for name in names if name in _RESERVED]:
            raise ValueError(
                f"ingest has a column {reserved[0]} of its own: name it otherwise, by names: or in the query by AS"
            )

    @property
    def protection(self) -> Protection:
        """Row filter, masks and tags of the table."""
        tags = {name: column.tags for name, column in (self.columns or {}).items() if column.tags}
        return Protection(row_filter=self.row_filter, masks=self.masks, tags=tags)

    def schema_class(self) -> type[dy.Schema]:
        """Return the contract, built from `columns` or imported.

        Raises
        ------
        ValueError
            If `contract` names no dataframely schema.
        """
        if self.columns is not None:
            # By an alias, a column may have any name: `filter` is a method of a schema, `__id` is private to it.
            columns = {
                f"column_{place}": column.build(name) for place, (name, column) in enumerate(self.columns.items())
            }
            return type(self.name.removeprefix("raw/"), (dy.Schema,), columns)
        module, _, name = str(self.contract).partition(":")
        try:
            contract = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise ValueError(f"contract '{self.contract}': {error}") from error
        if not (isinstance(contract, type) and issubclass(contract, dy.Schema)):
            raise ValueError(f"contract wants module:Class of a dataframely schema, found none at '{self.contract}'")
        return contract

    def take(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Make texts that mean a missing value null, and drop unlisted columns if the spec says so."""
        marks = {name: list(column.null_values) for name, column in (self.columns or {}).items() if column.null_values}
        rows = rows.with_columns(
            pl.when(~pl.col(name).is_in(marks[name])).then(pl.col(name)).alias(name)
            for name, dtype in rows.schema.items()
            if name in marks and dtype == pl.String
        )
        if self.unlisted == "reject":
            _check_not_selectors(rows.columns)
            return rows
        listed = self.schema_class().columns()
        return rows.select([name for name in rows.columns if name in listed])


def _check_not_selectors(names: Iterable[str]) -> None:
    if selectors := [name for name in names if is_selector(name)]:
        raise ValueError(
            f"a column cannot be named {selectors[0]}, which means several columns in queries: name it otherwise, by "
            "names: or in the query by AS, or leave it out and say unlisted: drop"
        )


def resolve(path: str) -> Path | str:
    """Resolve a path of the YAML: expand $VARIABLES and `~`, relative to the project's root; a URI stays a text.

    Raises
    ------
    ValueError
        If a variable is not set.
    """
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise ValueError(f"Path '{path}': its variable is not set in the environment.")
    return expanded.rstrip("/") if "://" in expanded else current_project().root / Path(expanded).expanduser()
