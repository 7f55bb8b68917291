"""`ml-platform features`: the catalogue of feature views in the terminal."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.printable import plain
from ml_platform.project import current_project
from ml_platform.settings import Settings
from ml_platform.spec.types import duration
from ml_platform.terminal import say, show, stop

if TYPE_CHECKING:
    from ml_platform.features.catalogue.describe import ViewState


class Format(StrEnum):
    """How the catalogue is written."""

    TABLE = "table"
    JSON = "json"
    HTML = "html"


def features(
    view: Annotated[str | None, typer.Argument(help="Show one view with its features; all views by default.")] = None,
    format: Annotated[Format, typer.Option(help="How the catalogue is written.")] = Format.TABLE,
    defs: Annotated[Path | None, typer.Option(help="A defs folder; the project's by default.")] = None,
) -> None:
    """List the feature views: entity, TTL, owner, definition, models, rows, newest event, share of nulls."""
    import msgspec

    from ml_platform.features.catalogue.describe import describe_views
    from ml_platform.features.catalogue.page import render_page
    from ml_platform.features.online.open import open_online_store
    from ml_platform.features.views.load import load_views
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.spec_yaml import check_project

    settings = Settings()
    defs = defs or current_project().defs
    views = load_views(defs / "features")
    if view is not None and view not in views:
        stop(f"There is no feature view '{view}'; there are: {', '.join(views) or 'none'}")
    specs = check_project(defs, {name: item.columns.keys() for name, item in views.items()}).values()
    chosen = {view: views[view]} if view is not None else views
    with open_online_store(settings.online_uri) as online:
        states = describe_views(
            Lake(settings.lake_uri), chosen, specs, online=online, releases=ReleaseStore(settings.releases_dir)
        )
    if format is Format.JSON:
        documents = [state.model_dump(mode="json") | {"null_share": state.null_share} for state in states]
        typer.echo(msgspec.json.format(msgspec.json.encode(documents), indent=2).decode())
    elif format is Format.HTML:
        typer.echo(render_page(states))
    elif view is not None:
        show(_details(states[0]))
    else:
        show(_table([_row(state) for state in states]) if states else "There are no feature views yet.")
        for state in states:
            for problem in state.problems:
                say(f"{state.name}: {problem}")


def _row(state: "ViewState") -> dict[str, str]:
    return {
        "view": state.name,
        "entity": ", ".join(state.entity),
        "ttl": duration(state.ttl) if state.ttl else "none",
        "owner": state.owner,
        "definition": state.hash[:12],
        "models": ", ".join(state.models) or "none",
        "rows": "not computed" if state.rows is None else f"{state.rows:,}",
        "newest": _short(state.newest),
        "online": _short(state.newest_online),
        "nulls": _share(state.null_share),
    }


def _details(state: "ViewState") -> str:
    tags = {"tags": ", ".join(f"{name}: {value}" for name, value in state.tags.items()) or "none"}
    facts = "\n".join(f"{name:<11} {value}" for name, value in {**_row(state), **tags}.items())
    rows = [
        {
            "feature": item.name,
            "type": item.type,
            "unit": item.unit or "",
            "nulls": _share(item.null_share),
            "last value": "" if item.last is None else str(item.last),
            "description": item.description,
        }
        for item in state.features
    ]
    problems = "".join(f"\n{problem}" for problem in state.problems)
    return f"{state.description.strip()}\n\n{facts}{problems}\n\n{_table(rows)}"


def _table(rows: list[dict[str, str]]) -> str:
    rows = [{name: plain(value) for name, value in row.items()} for row in rows]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [dict(zip(widths, widths, strict=True)), {name: "-" * width for name, width in widths.items()}, *rows]
    return "\n".join("  ".join(line[name].ljust(width) for name, width in widths.items()).rstrip() for line in lines)


def _short(instant: Any) -> str:
    return f"{instant:%Y-%m-%d %H:%M}" if instant else "none"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
