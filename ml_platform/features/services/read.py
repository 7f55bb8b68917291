"""Look-ups without a server: from a notebook, a script or a terminal, by the same plans and rules as serving."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ml_platform.features.online.store import OnlineStore
from ml_platform.features.services.lookup import ViewValues, look_up
from ml_platform.features.services.plan import (
    DefinitionMoved,
    LookupPlan,
    NotServable,
    plan_service,
    plan_view,
    stored_definitions,
)
from ml_platform.registry.feature_services import FeatureServiceStore
from ml_platform.registry.input_contract import Contract

_TRIES = 5  # while definitions change meanwhile


def current_plan(name: str, services: FeatureServiceStore, online: OnlineStore) -> LookupPlan:
    """How a published service, or else a view of the online store, is looked up now.

    Raises
    ------
    LookupError
        When neither has this name.
    ml_platform.features.services.plan.NotServable
        When the online store does not fit.
    """
    service = services.read(name) if name in services.names() else None
    if service is not None:
        return plan_service(service, stored_definitions(online, {one.view for one in service.views}))
    definition = online.definition(name)
    if definition is None:
        known = sorted({*services.names(), *online.views()}) or ["none yet: materialise online/<view>"]
        raise LookupError(f"no feature view or service '{name}'; there are: {', '.join(known)}")
    return plan_view(name, definition)


def read_features(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    services: FeatureServiceStore,
    online: OnlineStore,
    *,
    as_of: datetime | None = None,
) -> tuple[LookupPlan, list[dict[str, Any]], list[ViewValues], datetime]:
    """Look up rows of a view or service; all request features are computed.

    Parameters
    ----------
    name
        The view or service.
    rows
        Values of its fields by name; those that are left out are null.
    services, online
        Where services are published, and what serving reads.
    as_of
        Instant from which ages and TTLs count, and after which nothing was known (UTC); now when None.

    Returns
    -------
    tuple
        The plan, the rows with defaults and request features, what each view has for them, and the instant of it.

    Raises
    ------
    LookupError, NotServable
        See `current_plan`.
    ValueError
        When a row has an unknown field, or breaks the contract of an input.
    """
    for _ in range(_TRIES):
        plan = current_plan(name, services, online)
        complete = [_checked(plan, row, number) for number, row in enumerate(rows)]
        now = as_of or datetime.now(UTC)
        try:
            return plan, complete, look_up(plan, complete, online.read, now, strict=as_of is not None), now
        except DefinitionMoved:
            continue
    raise NotServable(f"the definitions of '{name}' changed {_TRIES} times while it was looked up: try again")


def _checked(plan: LookupPlan, row: Mapping[str, Any], number: int) -> dict[str, Any]:
    names = {field.name for field in plan.fields}
    if unknown := sorted(row.keys() - names):
        raise ValueError(f"row {number}: no field {', '.join(unknown)}; there are: {', '.join(sorted(names))}")
    values = {field.name: row.get(field.name) for field in plan.fields}
    declared = [field for field in plan.fields if field.name not in plan.nullable]
    if (flagging := Contract.flagging(declared)) is not None:
        flagging.check_row(values, number)  # puts defaults in the place of nulls
    if violations := Contract.refusing(declared).check_row(values, number):
        raise ValueError(f"row {number}, {violations[0].field}: {violations[0].message}")
    plan.derive(values)
    return values
