"""Reads on record for the console and HTTP: who may ask, what was asked, and what the page shows."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from msgspec.structs import replace
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ml_platform.governance.keys import ALL_MODELS
from ml_platform.governance.recorded_reads import ReadAnswer, ReadQuery, may_audit
from ml_platform.serving.access.governed import GovernedCaller
from ml_platform.serving.http.request_context import RequestContext

TEXTS = ("object", "column", "who")
TIMES = ("since", "until")


def authorized_query(scope: Scope, query: ReadQuery) -> ReadQuery:
    """The query as its caller may ask it: under a policy of what they manage, else for administrators.

    Raises
    ------
    HTTPException
        403, in the same words whether there is such an object or not.
    """
    context = RequestContext.of(scope)
    caller = context.key
    if isinstance(caller, GovernedCaller):
        if query.object is not None and not may_audit(caller.policy, caller.principal, query.object):
            who = caller.principal.text
            raise HTTPException(403, f"{who} lacks the privilege 'manage' on {query.object}")
        return replace(query, asks=caller.principal)
    if not context.may("admin", ALL_MODELS):
        raise HTTPException(403, "who read what is for the role 'admin' on all models")
    return query


def query_of(parameters: Mapping[str, str]) -> tuple[ReadQuery, list[str]]:
    """What a form asks, and what of it is wrong and therefore left out.

    Examples
    --------
    >>> query_of({"object": "raw/flights", "since": "2024-05-01", "page": "2"})[0].since.isoformat()
    '2024-05-01T00:00:00+00:00'
    >>> query_of({"until": "May"})[1]
    ["until: a date or instant was wanted, like 2024-05-17; found 'May'"]
    """
    texts = {name: value for name in TEXTS if (value := parameters.get(name, "").strip())}
    times: dict[str, datetime] = {}
    wrong = []
    for name in TIMES:
        if text := parameters.get(name, "").strip():
            try:
                times[name] = instant_of(text)
            except ValueError:
                wrong.append(f"{name}: a date or instant was wanted, like 2024-05-17; found {text!r}")
    page = parameters.get("page", "")
    number = int(page) if page.isascii() and page.isdecimal() and len(page) < 10 else 1
    query = ReadQuery(
        object=object_of(texts.get("object")),
        column=texts.get("column"),
        who=texts.get("who"),
        since=times.get("since"),
        until=times.get("until"),
        page=max(1, number),
    )
    return query, wrong


def object_of(name: str | None) -> str | None:
    """A table as the record names it: `raw/flights` is understood too."""
    return None if name is None else name.replace("/", ".", 1) if "." not in name and ":" not in name else name


def instant_of(text: str) -> datetime:
    """An instant, in UTC where it says no zone (raises ValueError)."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def audit_page(query: ReadQuery, answer: ReadAnswer, parameters: Mapping[str, str], wrong: list[str]) -> dict[str, Any]:
    """What the page shows."""
    kept = {name: value for name in (*TEXTS, *TIMES) if (value := parameters.get(name, "").strip())}
    pages = max(1, -(-answer.total // query.limit))
    return {
        "asked": {name: kept.get(name, "") for name in (*TEXTS, *TIMES)},
        "answer": answer,
        "wrong": wrong,
        "page": query.page,
        "pages": pages,
        "before": f"?{urlencode({**kept, 'page': min(query.page - 1, pages)})}" if query.page > 1 else None,
        "after": f"?{urlencode({**kept, 'page': query.page + 1})}" if query.page < pages else None,
        "narrow": lambda **one: f"?{urlencode({**kept, **one})}",
    }
