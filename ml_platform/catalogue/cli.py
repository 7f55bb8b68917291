"""`ml-platform catalogue`: search everything that there is, show one thing, write it as pages."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.settings import Settings
from ml_platform.terminal import say, show, stop

if TYPE_CHECKING:
    from ml_platform.catalogue.document import Catalogue, Column, Entry, View

app = typer.Typer(
    no_args_is_help=True,
    help="Search sources, tables, views, models, endpoints, notebooks and terms; show one; write them as pages.",
)
MOST_HITS = 20
WIDTH = 100
MOST_ENDS = 15  # of a column's lineage, in each direction


class Format(StrEnum):
    """How the answer is written."""

    TEXT = "text"
    JSON = "json"


@app.command("search")
def search_command(  # noqa: PLR0917 - the options of a command
    words: Annotated[list[str] | None, typer.Argument(help="What to look for; everything when left out.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind, e.g. table; may be repeated.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only of this owner.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag: name or name=value.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most hits to show.")] = MOST_HITS,
    format: Annotated[Format, typer.Option(help="How the hits are written.")] = Format.TEXT,
) -> None:
    """Find what there is by names, columns, descriptions, owners, tags and terms; words may have typos.

    Example: ml-platform catalogue search "carrier delay"
    """
    import json

    from ml_platform.catalogue.document import KINDS
    from ml_platform.catalogue.pages import short
    from ml_platform.catalogue.search import search

    unknown = [one for one in kind or () if one not in KINDS]
    if unknown:
        stop(f"there is no kind '{unknown[0]}'; there are: {', '.join(KINDS)}")
    view = _view()
    hits = search(view, " ".join(words or ()), kinds=kind or (), owner=owner, tag=tag)
    if format is Format.JSON:
        found = [
            {
                "name": hit.entry.name,
                "kind": hit.entry.kind,
                "description": hit.entry.description,
                "owner": hit.entry.owner,
                "columns": list(hit.columns),
                "score": round(hit.score, 2),
            }
            for hit in hits[:limit]
        ]
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for hit in hits[:limit]:
        columns = f"  ({', '.join(hit.columns)})" if hit.columns else ""
        say(f"{hit.entry.name}  {hit.entry.kind}{f', {hit.entry.owner}' if hit.entry.owner else ''}{columns}")
        if hit.entry.description:
            say(f"    {short(hit.entry.description, WIDTH)}")
    if len(hits) > limit:
        say(f"and {len(hits) - limit:,} more: --limit {len(hits)} shows all")
    if not hits:
        say("Nothing fits. Fewer words find more; `ml-platform catalogue search` lists everything.")
    _tell(view)


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="As search names it: raw.flights, model:flight_delay, term:late.")],
    sample: Annotated[bool, typer.Option("--sample", help="Also a few rows of a table.")] = False,
    format: Annotated[Format, typer.Option(help="How it is written.")] = Format.TEXT,
) -> None:
    """Show one thing: what it is, who owns it, its columns and rules, what it is made of, who reads it, how to.

    Example: ml-platform catalogue show raw.flights
    """
    import json

    from ml_platform.catalogue.pages import entry_facts
    from ml_platform.catalogue.reader import lake_of
    from ml_platform.catalogue.sample import sample_of

    view = _view()
    try:
        entry = view.get(name)
    except LookupError as error:
        stop(str(error))
    rows = sample_of(lake_of(Settings(), None), entry.table) if sample and entry.table else None
    if format is Format.JSON:
        facts = entry_facts(view, entry)
        if rows is not None:
            facts["sample"] = {"columns": rows.columns, "rows": rows.rows, "says": rows.says}
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    show("\n".join(_lines(view, entry)))
    if rows is not None:
        say("")
        say(f"Sample: {rows.says}")
        for row in rows.rows:
            say(
                "  "
                + ", ".join(
                    f"{name}={'null' if value is None else value}"
                    for name, value in zip(rows.columns, row, strict=True)
                )
            )
    elif sample:
        say(f"{entry.name} has no rows of its own.")


@app.command()
def refresh() -> None:
    """Collect the catalogue again and keep it for the console, as the asset governance/catalogue does."""
    from ml_platform.catalogue.document import catalogue_path
    from ml_platform.catalogue.refresh import refresh_catalogue

    catalogue = refresh_catalogue(Settings())
    say(f"{len(catalogue.entries):,} entries are in {catalogue_path(Settings().home)}")
    for problem in catalogue.problems:
        say(f"warning: {problem}", err=True)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write; an earlier export there is replaced.")],
    samples: Annotated[
        bool, typer.Option("--samples", help="With a few rows of each table, as everybody may see them.")
    ] = False,
) -> None:
    """Write the catalogue as pages that open without a server.

    Example: ml-platform catalogue export site/
    """
    from ml_platform.catalogue.export import NotAnExport
    from ml_platform.catalogue.export import export as write_pages
    from ml_platform.catalogue.reader import ANYBODY, browser_of, lake_of
    from ml_platform.catalogue.sample import sample_of
    from ml_platform.project import current_project

    lake = lake_of(Settings(), ANYBODY.text) if samples else None
    catalogue = _collected()
    try:
        count = write_pages(
            catalogue,
            folder,
            project=current_project().package,
            may_browse=browser_of(Settings(), ANYBODY),
            sample=lambda entry: (
                sample_of(lake, entry.table) if lake and entry.table and entry.version is not None else None
            ),
        )
    except (NotAnExport, OSError) as error:
        stop(str(error))
    say(f"{count:,} entries are in {folder}: open {(folder / 'index.html').resolve()}")


def _collected() -> "Catalogue":
    from ml_platform.catalogue.collect.project import collect

    return collect(Settings())


def _view() -> "View":
    from ml_platform.catalogue.document import View
    from ml_platform.catalogue.reader import browser_of
    from ml_platform.lake.access import AccessDenied

    try:
        return View(_collected(), browser_of(Settings()))
    except AccessDenied as error:
        stop(str(error))


def _origin(column: "Column", tag: str) -> str:
    if tag not in column.flowing:
        return ""
    return f" from {', '.join(map(str, column.flowing[tag])) or 'a column that it is made of'}"


def _tell(view: "View") -> None:
    for problem in view.problems[:5]:
        say(f"warning: {problem}", err=True)
    if len(view.problems) > 5:
        say(f"warning: and {len(view.problems) - 5} more, see `ml-platform catalogue refresh`", err=True)


def _lines(view: "View", entry: "Entry") -> list[str]:
    from ml_platform.catalogue.pages import since, when

    lines = [f"{entry.name}  ({entry.kind})", "", entry.description or "Nobody has described it yet.", ""]
    facts = {
        "owner": entry.owner or "nobody is named",
        "tags": ", ".join(f"{name}: {value}" for name, value in entry.tags.items()),
        "terms": ", ".join(entry.terms),
        "rows": "" if entry.rows is None else f"{entry.rows:,}",
        "last change": f"{when(entry.updated_at)} ({since(entry.updated_at)})" if entry.updated_at else "",
        "version": "" if entry.version is None else str(entry.version),
        **entry.facts,
        "made of": ", ".join(one.name for one in view.upstream(entry)),
        "read by": ", ".join(one.name for one in view.downstream(entry)),
        "models": ", ".join(one.title for one in view.models_of(entry)),
    }
    width = max(map(len, facts))
    lines += [f"{name:<{width}}  {' '.join(value.split())}" for name, value in facts.items() if value]
    lines += [f"warning: {problem}" for problem in entry.problems]
    if entry.columns:
        lines += ["", "Columns"]
        longest = min(40, max(len(column.name) for column in entry.columns))
        for column in entry.columns:
            unit = f" [{column.unit}]" if column.unit else ""
            rules = f" ({'; '.join(column.rules)})" if column.rules else ""
            said = f"  {' '.join(column.description.split())}" if column.description else ""
            tags = "".join(f"  #{tag}{_origin(column, tag)}" for tag in column.tags)
            lines.append(f"  {column.name:<{longest}}  {column.type}{unit}{rules}{said}{tags}")
    if entry.lineage:
        lines += ["", "Lineage of columns (more by ml-platform lineage columns)"]
        for one in entry.lineage:
            lines += [f"  {one.name}"] if one.upstream or one.downstream else []
            lines += [f"    from {source}" for source in one.upstream[:MOST_ENDS]]
            lines += [f"    into {target}" for target in one.downstream[:MOST_ENDS]]
    for title, items in (
        ("Rules over several columns", entry.rules),
        ("Checks", [f"{one.name}: {one.verdict} {one.says}" for one in entry.checks]),
    ):
        if items:
            lines += ["", title, *(f"  {item}" for item in items)]
    for title, text in entry.how.items():
        lines += ["", title, *(f"  {line}".rstrip() for line in text.splitlines())]
    if entry.history:
        lines += ["", "History", *(f"  {one.version}  {when(one.at)}  {one.what}" for one in entry.history)]
    return lines
