"""Feature views: usually one SQL file each, which declares entity, event time, TTL and columns before the query."""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Literal, Self

import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from ml_platform.features.incremental_spec import DAY_COLUMN, Incremental
from ml_platform.features.rolling.spec import Rolling
from ml_platform.features.stream_spec import ViewStream
from ml_platform.features.views.declared_types import DTYPES
from ml_platform.lake.contracts.protection_check import check_protection
from ml_platform.lake.query import sql
from ml_platform.spec.protection import Protection, RuleOrText, TagName
from ml_platform.spec.types import Duration, Strict, Tag

# A text, a quoted name, or a run of blanks and comments, which SQL reads as one space.
_QUOTED_OR_BLANK = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(?:\s|--[^\n]*|/\*.*?\*/)+""", re.DOTALL)


class FeatureColumn(Strict):
    """One feature of a view."""

    type: Literal["number", "integer", "boolean", "string"] = Field(
        description="Type of its values; another is refused when the view is computed."
    )
    description: str = Field(description="What it means, and from which rows it is made.")
    unit: str | None = Field(
        None, description="Unit of its values, shown in the catalogue and part of the view's hash; none when absent."
    )
    tags: tuple[TagName, ...] = Field(
        (), description="Tags of the column, such as pii, for policies by tag (see Masks and filters)."
    )


class FeatureView(Strict):
    """A set of features of an entity over time.

    A row holds the newest known values of its entity from `event_time` on, until a newer row or the end of `ttl`.
    """

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{1,62}$",
        description="Name of the view, from its file's name: lower case, digits and underscores.",
    )
    description: str = Field(description="What a row says.")
    owner: str = Field(description="Who answers for it: an e-mail address, or team:<name>.")
    entity: tuple[str, ...] = Field(min_length=1, description="Columns that identify what the features describe.")
    event_time: str = Field("event_time", description="Column with the instant from which the row was known (UTC).")
    created: str | None = Field(
        None, description="Column that decides between rows with the same event time: the latest wins."
    )
    ttl: Duration | None = Field(None, description="Age up to which a row may be used; unlimited when absent.")
    tags: dict[str, Tag] = Field(
        default_factory=dict,
        description="Tags of its assets in Dagster, of at most 63 letters, digits, `_`, `.` and `-`.",
    )
    columns: dict[str, FeatureColumn] = Field(
        min_length=1, description="Its features: name → type, description and unit."
    )
    row_filter: RuleOrText | None = Field(None, description=Protection.model_fields["row_filter"].description)
    masks: dict[str, RuleOrText] = Field(default_factory=dict, description=Protection.model_fields["masks"].description)
    sql: str = Field("", description="Query over the lake's tables that gives every row of the view.")
    incremental: Incremental | None = Field(None, description="Allows computing only the changed days.")
    rolling: Rolling | None = Field(None, description="Windows that `sql` was compiled from.")
    stream: ViewStream | None = Field(
        None, description="Where the events of a view with `rolling` come from, if online values follow them at once."
    )
    sources: tuple[str, ...] = Field((), description="Lake tables that a view in Python reads, in argument order.")
    code: str = Field("", description="Source code of a view in Python (see `ml_platform.features.views.polars_view`).")
    _function: Callable[..., pl.LazyFrame] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.sql) == bool(self.code):
            raise ValueError("a view is a query or a function: give one of `sql` and `code`")
        if self.incremental and DAY_COLUMN in {*self.columns, *self.keys}:
            raise ValueError(f"columns: '{DAY_COLUMN}' is the partition of an incremental view; choose another name")
        if len(set(self.keys)) < len(self.keys):
            raise ValueError(
                f"entity, event_time and created: each is a column of its own, found {list(self.keys)}; leave one out"
            )
        if self.stream is not None:
            self._check_stream(self.stream)
        if twice := sorted(set(self.columns) & set(self.keys)):
            raise ValueError(
                f"columns: {twice} also name the entity or a time of the view; give the feature its own name"
            )
        if not self.protection.is_empty:
            instants = {self.event_time, self.created}
            types = {name: DTYPES["timestamp"] if name in instants else None for name in self.keys}
            check_protection(self.protection, {**types, **{n: DTYPES[c.type] for n, c in self.columns.items()}})
        return self

    @property
    def protection(self) -> Protection:
        """Row filter, masks and tags of the view's rows."""
        tags = {name: column.tags for name, column in self.columns.items() if column.tags}
        return Protection(row_filter=self.row_filter, masks=self.masks, tags=tags)

    def _check_stream(self, stream: ViewStream) -> None:
        """Refuse a stream whose events lack what the windows need."""
        if self.rolling is None:
            raise ValueError("stream: only the windows of `rolling` follow a stream; declare them in a .yaml file")
        if self.created is not None:
            raise ValueError("created: rows of a view with `stream` never change afterwards; leave `created` out")
        if not self.rolling.source.startswith("raw/"):
            raise ValueError(f"rolling.source: a stream fills a table of its own in raw/, not {self.rolling.source}")
        wanted = {*self.entity, self.rolling.time, *self.rolling.inputs()}
        if missing := sorted(wanted - set(stream.columns)):
            raise ValueError(f"stream.columns: {missing} are needed by entity, time or aggregates; add their types")
        if stream.columns[self.rolling.time] != "timestamp":
            kind = stream.columns[self.rolling.time]
            raise ValueError(f"stream.columns: '{self.rolling.time}' is the time of events: timestamp, not {kind}")
        if numbers := [name for name in self.entity if stream.columns[name] == "number"]:
            raise ValueError(f"stream.columns: {numbers} identify an entity: integer or string, not number")
        added = {item.column for item in self.rolling.aggregates.values() if item.decimals is not None}
        if texts := sorted(name for name in added if name and stream.columns[name] in {"string", "timestamp"}):
            raise ValueError(f"stream.columns: {texts} are added up: number, integer or boolean")

    @property
    def table(self) -> str:
        """Lake table that holds the view's rows."""
        return f"features/{self.name}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Entity and time columns, which together identify a row."""
        return (*self.entity, self.event_time, *((self.created,) if self.created else ()))

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides values and their meaning: query, keys, TTL, types, units; not descriptions."""
        meaning = {
            "entity": self.entity,
            "event_time": self.event_time,
            "created": self.created,
            "ttl": self.ttl.total_seconds() if self.ttl else None,
            "columns": {name: (column.type, column.unit) for name, column in sorted(self.columns.items())},
            "sql": _QUOTED_OR_BLANK.sub(lambda match: match[0] if match[0][0] in "'\"" else " ", self.sql).strip(),
            **({"code": self.code, "sources": self.sources} if self.code else {}),
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    @property
    def source_tables(self) -> tuple[str, ...]:
        """Lake tables that the view is computed from."""
        return self.sources if self.code else tuple(sorted(sql.referenced_tables(self.sql)))

    @property
    def function(self) -> Callable[..., pl.LazyFrame] | None:
        """Function of a view in Python, from frames of its sources to the view's rows; None for a query."""
        return self._function

    def with_function(self, function: Callable[..., pl.LazyFrame]) -> Self:
        """Copy the view, with a function that computes its rows from its sources."""
        view = self.model_copy()
        view._function = function
        return view
