"""Answers to look-ups: by row, or by column."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from ml_platform.features.online.store import to_micros
from ml_platform.features.services.lookup import Status, ViewValues
from ml_platform.features.services.plan import LookupPlan


class ViewAbout(msgspec.Struct, kw_only=True):
    """Which view's values these are, under the name that the answer gives it."""

    view: str
    definition: str  # SHA-256 of the definition that computed the values
    ttl_seconds: float | None  # null: unlimited


class Freshness(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What one view knows of one key."""

    status: Status
    event_time: datetime | msgspec.UnsetType = msgspec.UNSET  # from when on the values were known
    age_seconds: float | msgspec.UnsetType = msgspec.UNSET


class FeatureRow(msgspec.Struct, kw_only=True, gc=False):
    """Features of one row, in the order of the request's."""

    features: Mapping[str, Any]
    views: Mapping[str, Freshness]


class ColumnFreshness(msgspec.Struct, kw_only=True):
    """What one view knows of the keys of all rows."""

    status: Sequence[Status]
    event_time: Sequence[datetime | None]
    age_seconds: Sequence[float | None]


class LookupAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Answer to a look-up: `rows`, or `features` and `freshness` by column."""

    name: str
    kind: Literal["view", "service"]
    revision: int | msgspec.UnsetType = msgspec.UNSET  # of the service
    request_id: str
    time: datetime  # from which ages count (UTC)
    views: Mapping[str, ViewAbout]
    rows: Sequence[FeatureRow] | msgspec.UnsetType = msgspec.UNSET
    features: Mapping[str, Sequence[Any]] | msgspec.UnsetType = msgspec.UNSET
    freshness: Mapping[str, ColumnFreshness] | msgspec.UnsetType = msgspec.UNSET
    masked: Sequence[str] | msgspec.UnsetType = (
        msgspec.UNSET
    )  # features that are null since this caller may not see them


class Found(msgspec.Struct, kw_only=True, frozen=True):
    """What was looked up for a request."""

    plan: LookupPlan
    time: datetime
    rows: Sequence[Mapping[str, Any]]  # fields, and request features where they were computed
    views: Sequence[ViewValues]
    with_derived: bool  # whether request features are part of the answer
    masked: Sequence[str] = ()  # features that the caller may not see, by the answer's names

    def columns(self) -> dict[str, list[Any]]:
        """All features by name; null where there is none."""
        columns: dict[str, list[Any]] = {}
        for view in self.views:
            columns |= view.columns()
        if self.with_derived:
            columns |= {name: [row[name] for row in self.rows] for name, _ in self.plan.derived}
        return columns


def answer_of(found: Found, request_id: str, *, by_column: bool) -> LookupAnswer:
    """Make the answer of this server's own route."""
    plan, micros = found.plan, to_micros(found.time)
    answer = LookupAnswer(
        name=plan.name,
        kind="view" if plan.service is None else "service",
        request_id=request_id,
        time=found.time,
        views={
            one.name: ViewAbout(view=one.view, definition=one.view_hash, ttl_seconds=one.ttl_seconds)
            for one in plan.views
        },
    )
    if plan.service is not None:
        answer.revision = plan.service.revision
    if found.masked:
        answer.masked = found.masked
    if by_column:
        answer.features = found.columns()
        answer.freshness = {
            one.view.name: ColumnFreshness(
                status=one.status, event_time=one.event_times(), age_seconds=one.ages(micros)
            )
            for one in found.views
        }
    else:
        answer.rows = _rows(found, micros)
    return answer


def _rows(found: Found, micros: int) -> list[FeatureRow]:
    columns = found.columns()
    names = tuple(columns)
    freshness = []
    for one in found.views:
        said = zip(one.status, one.event_times(), one.ages(micros), strict=True)
        freshness.append([_freshness(*each) for each in said])
    views = [view.view.name for view in found.views]
    values = zip(*columns.values(), strict=True)
    return [
        FeatureRow(features=dict(zip(names, value, strict=True)), views=dict(zip(views, each, strict=True)))
        for value, each in zip(values, zip(*freshness, strict=True), strict=True)
    ]


def _freshness(status: Status, event_time: datetime | None, age: float | None) -> Freshness:
    if event_time is None or age is None:
        return Freshness(status=status)
    return Freshness(status=status, event_time=event_time, age_seconds=age)
