"""Feast's feature server: `POST /get-online-features`, as its `RemoteOnlineStore` and other clients call it.

Entities come by column, features as `view:feature` or as a `feature_service`; the answer has a list of values, statuses
and event times for each column. A value that is null is a NULL_VALUE; one past its TTL is OUTSIDE_MAX_AGE and, unlike
Feast's, not given out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite
from time import perf_counter
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ml_platform.features.services.lookup import Status, ViewValues
from ml_platform.features.services.plan import DefinitionMoved, LookupPlan, PlannedView
from ml_platform.serving.access.governed import FEATURES
from ml_platform.serving.feature_serving.responses import Found
from ml_platform.serving.feature_serving.service import FeatureServing, Prepared, moved
from ml_platform.serving.http.messages import Refused, encode
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.inputs.request_decoder import MAX_ROWS, RowDecoder
from ml_platform.serving.inputs.tabular_formats import body_of
from ml_platform.serving.inputs.validation_errors import parse
from ml_platform.serving.prediction.route_adapter import RouteAdapter

FEAST_PATH = "/get-online-features"
_STATUS: dict[Status, str] = {
    "present": "PRESENT",
    "expired": "OUTSIDE_MAX_AGE",
    "later": "NOT_FOUND",
    "unknown": "NOT_FOUND",
    "null_key": "NOT_FOUND",
}
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # what Feast says of what was not found
_MEMBERS = frozenset({
    "entities", "features", "feature_service", "full_feature_names", "include_feature_view_version_metadata",
})  # fmt: skip
_TRIES = 5
_DENSER = 4  # than a body that repeats the columns' names in each row


class FeastRequest(msgspec.Struct, frozen=True):
    """A request of Feast's clients."""

    entities: dict[str, list[Any]]
    features: list[str] = msgspec.field(default_factory=list)
    feature_service: str | None = None
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


def feast_error(refused: Refused, request_id: str) -> Response:
    """Shape an error so that Feast's clients, which show the whole body, say what is wrong."""
    body = encode({"status_code": refused.status, "detail": str(refused), "request_id": request_id})
    return Response(body, refused.status, media_type="application/json")


def feast_routes(adapter: RouteAdapter, features: FeatureServing) -> list[BaseRoute]:
    """Build the route."""

    def count(request: Request, status: int) -> None:
        features.count_request(request.path_params.get("view", "unknown"), status)

    @adapter.shaped(feast_error, count)
    async def get_online_features(request: Request) -> Response:
        context = RequestContext.of(request.scope)
        context.check()
        body = await adapter.body(request)

        def work() -> bytes:
            started = perf_counter()
            asked = _read(body)
            wanted = _wanted(asked.features)
            names = list(wanted) if asked.feature_service is None else [asked.feature_service]
            _check_scope(context, names)
            request.path_params["view"] = names[0]  # for metrics
            if asked.feature_service is None:
                found = _views(features, context.key, asked.entities, wanted)
            else:
                found = _service(features, context.key, asked.entities, asked.feature_service)
            content = encode(_answer(found, asked))
            features.count(found, perf_counter() - started)
            context.rows = len(found.rows)
            return content

        content = await features.in_turn(len(body) * _DENSER, work)
        return Response(content, media_type="application/json")

    return [Route(FEAST_PATH, get_online_features, methods=["POST"], include_in_schema=False)]


def _read(body: bytes) -> FeastRequest:
    """Read a request (raises Refused)."""
    try:
        document = parse(body)
    except InvalidRequest as invalid:
        raise Refused.of(invalid) from invalid
    try:
        asked = msgspec.convert(document, FeastRequest)
    except msgspec.ValidationError as error:
        raise _invalid(None, str(error)) from error
    if unknown := sorted(document.keys() - _MEMBERS):
        raise _invalid(unknown[0][:40], f"is not a field of this request; known are {', '.join(sorted(_MEMBERS))}")
    if (asked.feature_service is None) == (not asked.features):
        raise _invalid(None, "wanted either `features` or `feature_service`")
    lengths = {name: len(values) for name, values in asked.entities.items()}
    if len(set(lengths.values())) != 1 or not 0 < max(lengths.values()) <= MAX_ROWS:
        listed = ", ".join(f"{name[:40]} {length}" for name, length in list(lengths.items())[:5]) or "none"
        raise _invalid("entities", f"wanted columns of one length, 1 to {MAX_ROWS:,}, found {listed}")
    return asked


def _wanted(features: Sequence[str]) -> dict[str, list[str]]:
    """Features by view, in the order of the request (raises Refused)."""
    wanted: dict[str, list[str]] = {}
    for name in features:
        view, separator, feature = name.partition(":")
        if not separator or not view or not feature:
            raise _invalid("features", f"wanted `view:feature`, found {name[:80]!r}")
        if feature in wanted.setdefault(view, []):
            raise _invalid("features", f"'{name[:80]}' appears twice")
        wanted[view].append(feature)
    return wanted


def _check_scope(context: RequestContext, names: Sequence[str]) -> None:
    """Refuse a key that is not for one of these views or services (raises Refused)."""
    for name in names:
        if not context.may("predict", f"{FEATURES}{name}"):
            raise Refused(403, "forbidden", f"this key is not for {FEATURES}{name[:80]}")


def _service(features: FeatureServing, caller: object, entities: Mapping[str, Sequence[Any]], name: str) -> Found:
    """Look up a service (raises Refused)."""
    return features.find(
        name, b"", caller=caller, derived=True, rows=lambda _, prepared: _body(entities, prepared.plan)
    )


def _views(
    features: FeatureServing,
    caller: object,
    entities: Mapping[str, Sequence[Any]],
    wanted: Mapping[str, Sequence[str]],
) -> Found:
    """Look up features of some views by one request (raises Refused)."""
    prepare = features.prepared
    for _ in range(_TRIES):
        owns = {name: prepare(name) for name in wanted}
        plan = _plan(owns, wanted)
        if len(owns) == 1:
            [(_, decoder, _, _)] = owns.values()
        else:
            decoder = RowDecoder(plan.fields, nullable=plan.nullable)
        try:
            rows = decoder.decode(_body(entities, plan)).values
        except InvalidRequest as invalid:
            raise Refused.of(invalid) from invalid
        try:
            return features.look_up(plan, rows, caller=caller)
        except DefinitionMoved:
            prepare = features.prepare_anew
    raise moved(", ".join(wanted))


def _plan(owns: Mapping[str, Prepared], wanted: Mapping[str, Sequence[str]]) -> LookupPlan:
    """One plan for features of some views; keys of the same name are one field (raises Refused)."""
    views: list[PlannedView] = []
    fields: dict[str, Any] = {}
    for name, chosen in wanted.items():
        own = owns[name].plan
        if own.service is not None:
            raise _invalid("features", f"'{name}' is a feature service: ask for it as `feature_service`")
        [view] = own.views
        if unknown := sorted(set(chosen) - set(view.features)):
            raise _invalid("features", f"view '{name}' has no feature {unknown[0][:80]!r}")
        for field in own.fields:
            if fields.setdefault(field.name, field).type != field.type:
                raise _invalid("entities", f"'{field.name}' is of different types in these views: ask for them apart")
        columns = tuple(f"{name}__{feature}" for feature in chosen)
        views.append(replace(view, features=tuple(chosen), columns=columns))
    return LookupPlan(next(iter(wanted)), None, tuple(fields.values()), frozenset(fields), tuple(views))


def _body(entities: Mapping[str, Sequence[Any]], plan: LookupPlan) -> bytes:
    """The rows of a request as a body that is decoded like any other (raises Refused)."""
    rows = [dict(zip(entities, values, strict=True)) for values in zip(*entities.values(), strict=True)]
    try:
        return body_of(rows, plan.fields)
    except InvalidRequest as invalid:
        raise Refused.of(invalid) from invalid


def _answer(found: Found, asked: FeastRequest) -> dict[str, Any]:
    """Feast's answer: the entities' columns first, then a column for each feature (raises Refused)."""
    count, sent = len(found.rows), list(asked.entities)
    present, never = ["PRESENT"] * count, [_NEVER] * count
    names = list(sent)
    results: list[dict[str, Any]] = [
        {"values": asked.entities[name], "statuses": present, "event_timestamps": never} for name in sent
    ]
    for view in found.views:
        names += view.view.columns if asked.full_feature_names else view.view.features
        results += _columns(view)
    if found.with_derived:
        for name, _ in found.plan.derived:
            names.append(name)
            values = [row[name] for row in found.rows]
            results.append({"values": values, "statuses": _with_nulls(values, present), "event_timestamps": never})
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _invalid("features", f"{twice} would stand for two columns: ask with full_feature_names")
    metadata: dict[str, Any] = {"feature_names": names}
    if asked.include_feature_view_version_metadata:
        metadata["feature_view_metadata"] = [
            {"name": one.view.view, "version": 0, "definition": one.view.view_hash} for one in found.views
        ]
    if found.masked:
        metadata["masked"] = list(found.masked)
    return {"metadata": metadata, "results": results}


def _columns(view: ViewValues) -> list[dict[str, Any]]:
    statuses = [_STATUS[status] for status in view.status]
    times = [_NEVER if instant is None else instant for instant in view.event_times()]
    return [
        {"values": values, "statuses": _with_nulls(values, statuses), "event_timestamps": times}
        for values in view.columns().values()
    ]


def _with_nulls(values: list[Any], statuses: list[str]) -> list[str]:
    """The statuses of a column: what is null in JSON among the values that are present has one of its own."""
    if all(map(_is_said, values)):
        return statuses
    return [
        "NULL_VALUE" if status == "PRESENT" and not _is_said(value) else status
        for value, status in zip(values, statuses, strict=True)
    ]


def _is_said(value: Any) -> bool:
    """Whether JSON has a value: it lacks NaN and infinity."""
    return value is not None and (type(value) is not float or isfinite(value))


def _invalid(field: str | None, message: str) -> Refused:
    return Refused.of(InvalidRequest(422, [Problem(None, field, message)]))
