"""The pages of feature views and services: what there is, and a form that looks one up."""

import json
import shlex
from collections.abc import Callable
from typing import Any

from ml_platform.features.online.store import OnlineStore
from ml_platform.features.services.plan import LookupPlan, NotServable, derived_inputs, plan_service, plan_view
from ml_platform.serving.console.form import form_field
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.openapi.lookups import lookup_example


def features_page(state: ServingState, online: OnlineStore, covers: Callable[[str], bool]) -> dict[str, Any]:
    """What the list of views and services shows (raises what the online store raises)."""
    services = [
        {
            "name": name,
            "about": service,
            "views": [one.view for one in service.views],
            "count": sum(len(one.features) for one in service.views),
            "trouble": state.services_refused.get(name) or _trouble(state, name),
        }
        for name, service in sorted(state.services.items())
        if covers(name)
    ]
    services += [
        {"name": name, "about": None, "views": [], "count": 0, "trouble": reason}
        for name, reason in sorted(state.services_refused.items())
        if name not in state.services and covers(name)
    ]
    views = [
        {
            "name": name,
            "schema": definition.schema,
            "hash": definition.hash,
            "newest": online.newest(name),
            "written": online.written_at(name),
            "services": sorted(
                service.name
                for service in state.services.values()
                if covers(service.name) and name in {one.view for one in service.views}
            ),
        }
        for name, definition in sorted(state.views.items())
        if definition.schema is not None and covers(name)
    ]
    return {"services": services, "views": views}


def feature_page(state: ServingState, name: str, address: str) -> dict[str, Any]:
    """What the page of one view or service shows.

    Raises
    ------
    LookupError
        When there is none of this name; or one that cannot be looked up now, with the reason.
    """
    try:
        plan = _plan(state, name)
    except NotServable as reason:
        raise LookupError(str(reason)) from reason
    example = lookup_example(plan)
    call = json.dumps({name: "…" if value is None else value for name, value in example.items()}, ensure_ascii=False)
    service = plan.service
    schema = None if service is not None else state.views[name].schema
    return {
        "name": name,
        "service": service,
        "description": service.description if service is not None else (schema.description if schema else ""),
        "views": plan.views,
        "derived": derived_inputs(service.derived) if service is not None else [],
        "fields": [form_field(field, example.get(field.name)) for field in plan.fields],
        "call": f"curl -s {address}features/{name}/lookup -d {shlex.quote(call)}",
        "command": f"ml-platform features lookup {name} "
        + " ".join(shlex.quote(f"{key}={'…' if value is None else value}") for key, value in example.items()),
    }


def _plan(state: ServingState, name: str) -> LookupPlan:
    if (service := state.services.get(name)) is not None:
        return plan_service(service, state.views)
    if (reason := state.services_refused.get(name)) is not None:
        raise LookupError(f"feature service '{name}' is not served: {reason}")
    if (definition := state.views.get(name)) is not None:
        return plan_view(name, definition)
    raise LookupError(f"no feature view or service is called '{name[:80]}'; /features shows those that there are")


def _trouble(state: ServingState, name: str) -> str | None:
    try:
        _plan(state, name)
    except NotServable as reason:
        return str(reason)
    return None
