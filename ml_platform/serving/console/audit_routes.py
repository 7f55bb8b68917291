"""Reads on record over HTTP, as JSON."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import FastAPI, Query, Request
from pydantic import Field

from ml_platform.governance.recorded_reads import MOST_READS, ReadQuery
from ml_platform.serving.console.audit_page import object_of
from ml_platform.serving.console.renderer import Console
from ml_platform.spec.types import Strict


class OneRead(Strict):
    """A read on record."""

    time: datetime = Field(description="When (UTC).")
    who: str = Field(description="Who read: `user:ada`, `service:nightly job`, or the name of a key.")
    object: str = Field(description="What was read: `raw.customers`, `features.weather`, `model:churn`.")
    version: int | None = Field(description="Version of the table; null where none was opened.")
    columns: list[str] = Field(description="Columns that were read, where they are known.")
    rows: int | None = Field(description="Rows that were given; null where the number was not known then.")
    path: str = Field(description="How: `sql`, `notebook`, `training`, `batch`, `lookup`, `prediction` …")
    refused: bool = Field(description="Whether it was refused.")


class OneUnusual(Strict):
    """What is unusual about somebody's reads of today."""

    who: str = Field(description="Whose reads.")
    rule: str = Field(description="Which rule: `new reader`, `volume`, `hours` or `refusals`.")
    what: str = Field(description="What it is, in words.")


class ReadsOnRecord(Strict):
    """Reads on record that the caller may see, newest first."""

    since: datetime = Field(description="The earliest instant that was looked at.")
    until: datetime = Field(description="The instant before which reads were looked at.")
    total: int = Field(description="How many reads fit.")
    page: int = Field(description="Which page of them this is, from 1.")
    pages: int = Field(description="How many pages there are.")
    reads: list[OneRead] = Field(description="The reads of the page.")
    unusual: list[OneUnusual] = Field(description="What is unusual about today's reads.")
    is_recorded: bool = Field(description="Whether this platform writes reads down now.")
    problems: list[str] = Field(description="What could not be judged, and why.")


def add_audit(app: FastAPI, console: Console) -> None:
    """Serve `/audit/reads`."""

    @app.get(
        "/audit/reads",
        tags=["audit"],
        responses={
            403: {"description": "The key is neither an admin's nor has `manage` on the object."},
            422: {"description": "A parameter is too long, or no instant or number."},
            503: {"description": "The record cannot be read."},
        },
    )
    async def reads_on_record(  # noqa: PLR0917 - the parameters of a route
        request: Request,
        object_: Annotated[
            str | None,
            Query(alias="object", description="Only of this table, view or model: `raw.customers`.", max_length=300),
        ] = None,
        column: Annotated[str | None, Query(description="Only of this column.", max_length=300)] = None,
        who: Annotated[
            str | None, Query(description="Only by this reader, with or without its kind.", max_length=300)
        ] = None,
        since: Annotated[
            datetime | None, Query(description="The earliest instant; 30 days before `until` by default.")
        ] = None,
        until: Annotated[datetime | None, Query(description="Only reads before this instant; now by default.")] = None,
        page: Annotated[int, Query(description="Which page, from 1.", ge=1, le=1_000_000)] = 1,
        limit: Annotated[int, Query(description="Most reads on a page.", ge=1, le=MOST_READS)] = 100,
    ) -> ReadsOnRecord:
        """Who read what: of objects that the caller manages; of all for admins."""
        query = ReadQuery(
            object=object_of(object_),
            column=column,
            who=who,
            since=_utc(since),
            until=_utc(until),
            page=page,
            limit=limit,
        )
        answer = await console.recorded_reads(request.scope, query)
        return ReadsOnRecord(
            since=answer.since,
            until=answer.until,
            total=answer.total,
            page=page,
            pages=max(1, -(-answer.total // limit)),
            reads=[
                OneRead(
                    time=one.time,
                    who=one.who,
                    object=one.object,
                    version=one.version,
                    columns=list(one.columns),
                    rows=one.rows,
                    path=one.path,
                    refused=one.refused,
                )
                for one in answer.reads
            ],
            unusual=[OneUnusual(who=one.who, rule=one.rule, what=one.what) for one in answer.unusual],
            is_recorded=answer.is_recorded,
            problems=list(answer.problems),
        )


def _utc(instant: datetime | None) -> datetime | None:
    return instant.replace(tzinfo=UTC) if instant is not None and instant.tzinfo is None else instant
