"""`ml-platform features lookup`: what the online store has of a key, in a terminal."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.printable import plain
from ml_platform.settings import Settings
from ml_platform.terminal import show, stop

if TYPE_CHECKING:
    from datetime import datetime

    from ml_platform.features.services.lookup import ViewValues
    from ml_platform.features.services.plan import LookupPlan
    from ml_platform.registry.manifest import Input


def lookup(
    name: Annotated[str, typer.Argument(help="A feature view of the online store, or a published feature service.")],
    keys: Annotated[list[str], typer.Argument(help="Fields of one row, each key=value; `key=` is null.")],
    as_of: Annotated[
        str | None,
        typer.Option(help="Instant from which ages count and after which nothing was known; now by default."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write the answer as JSON.")] = False,
) -> None:
    """Look up the newest values of one key, as `POST /features/{view}/lookup` does, without a server.

    Example: ml-platform features lookup my_view key=value
    """
    from ml_platform.features.online.open import open_online_store
    from ml_platform.features.services.plan import NotServable
    from ml_platform.features.services.read import current_plan, read_features
    from ml_platform.registry.feature_services import FeatureServiceStore
    from ml_platform.registry.releases import ReleaseStore

    settings = Settings()
    services = FeatureServiceStore(ReleaseStore(settings.releases_dir))
    with open_online_store(settings.online_uri) as online:
        try:
            row = _row(keys, current_plan(name, services, online))
            plan, rows, views, now = read_features(name, [row], services, online, as_of=_as_of(as_of))
        except (LookupError, NotServable, ValueError) as error:
            stop(str(error.args[0] if error.args else error))
    if json:
        typer.echo(_as_json(plan, rows[0], views, now))
    else:
        show(_as_text(plan, rows[0], views, now))


def _row(pairs: list[str], plan: "LookupPlan") -> dict[str, Any]:
    """Values of `key=value` pairs by the types of a plan's fields (raises ValueError)."""
    fields = {field.name: field for field in plan.fields}
    row: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or name not in fields or name in row:
            wanted = ", ".join(f"{field}=…" for field in fields)
            raise ValueError(f"wanted {wanted}, each once, found {pair!r}")
        row[name] = _value(fields[name], text) if text else None
    if lacking := [field.name for field in plan.fields if field.required and field.name not in row]:
        raise ValueError(f"wanted {', '.join(f'{name}=…' for name in lacking)} too; `{lacking[0]}=` is null")
    return row


def _as_of(text: str | None) -> "datetime | None":
    from ml_platform.registry.manifest import Input

    instant: datetime | None = None if text is None else _value(Input(name="--as-of", type="timestamp"), text)
    return instant


def _value(field: "Input", text: str) -> Any:
    from datetime import datetime

    import msgspec

    from ml_platform.registry.input_contract import TYPES

    kinds: dict[str, Any] = {"integer": int, "number": float, "boolean": bool, "timestamp": datetime, "string": str}
    try:
        value = msgspec.convert(text, kinds[field.type], strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{field.name}: wanted {TYPES[field.type]}, found {text!r}") from error
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError(f"{field.name}: wanted {TYPES['timestamp']}, found {text!r}")
    return value


def _as_text(plan: "LookupPlan", row: dict[str, Any], views: "list[ViewValues]", now: "datetime") -> str:
    from ml_platform.features.online.store import to_micros
    from ml_platform.features.services.lookup import STATUSES

    lines = []
    for view in views:
        [status], [instant], [age] = view.status, view.event_times(), view.ages(to_micros(now))
        when = "" if instant is None else f", of {instant:%Y-%m-%d %H:%M:%S} UTC, {age:,.0f} s old"
        ttl = "" if view.view.ttl_seconds is None else f", counts for {view.view.ttl_seconds:,.0f} s"
        lines.append(f"{view.view.name}: {status}{when}{ttl}; definition {view.view.view_hash[:12]}")
        if status == "present":
            width = max(map(len, view.view.columns))
            lines += [f"  {name:<{width}}  {plain(_shown(value))}" for name, [value] in view.columns().items()]
        else:
            lines.append(f"  {STATUSES[status]}")
    if plan.derived:
        lines += ["computed from the request", *(f"  {name}  {plain(_shown(row[name]))}" for name, _ in plan.derived)]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _as_json(plan: "LookupPlan", row: dict[str, Any], views: "list[ViewValues]", now: "datetime") -> str:
    import msgspec

    from ml_platform.features.online.store import to_micros

    document = {
        "name": plan.name,
        "time": now,
        "features": {
            **{name: value for view in views for name, [value] in view.columns().items()},
            **{name: row[name] for name, _ in plan.derived},
        },
        "views": {
            view.view.name: {
                "view": view.view.view,
                "definition": view.view.view_hash,
                "ttl_seconds": view.view.ttl_seconds,
                "status": view.status[0],
                "event_time": view.event_times()[0],
                "age_seconds": view.ages(to_micros(now))[0],
            }
            for view in views
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
