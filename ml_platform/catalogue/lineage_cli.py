"""`ml-platform lineage`: which columns make which, what a change breaks, which rows made a version."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    from ml_platform.lineage.objects import Lineage

app = typer.Typer(
    no_args_is_help=True,
    help="Follow columns from source files to served predictions and back; say what a change breaks.",
)
WRONG = 2  # exit code for a name that nothing has: 1 says that something breaks
_VERSION = re.compile(r"(?:model:)?(?P<model>[a-z][a-z0-9_-]*)@v?(?P<version>\d+)")
Name = Annotated[
    str, typer.Argument(help="A column (raw.flights.tailnum) or all of an object (features.weather, model:my_model).")
]


class GraphFormat(StrEnum):
    """How a graph is written."""

    TEXT = "text"
    JSON = "json"
    DOT = "dot"


class Format(StrEnum):
    """How an answer is written."""

    TEXT = "text"
    JSON = "json"


def _lineage() -> "Lineage":
    """The graph of the project, stored anew, as who speaks may see it."""
    from ml_platform.catalogue.visible_lineage import sight_of_speaker
    from ml_platform.lake.access import AccessDenied
    from ml_platform.lineage.store import refresh_lineage

    settings = Settings()
    try:
        sees = sight_of_speaker(settings)
    except AccessDenied as error:
        stop(str(error), WRONG)
    lineage, problems = refresh_lineage(settings)
    seen = sees(lineage)
    for problem in problems if seen is lineage else []:  # a problem may name what is hidden
        say(problem, err=True)
    return seen


@app.command()
def columns(
    name: Name,
    upstream: Annotated[bool, typer.Option("--upstream", help="Only what it is made of.")] = False,
    downstream: Annotated[bool, typer.Option("--downstream", help="Only what is made of it.")] = False,
    direct: Annotated[bool, typer.Option("--direct", help="Only edges along which values flow.")] = False,
    format: Annotated[GraphFormat, typer.Option(help="dot is for Graphviz.")] = GraphFormat.TEXT,
) -> None:
    """Show what columns are made of, and what is made of them.

    Example: ml-platform lineage columns raw.flights.tailnum --downstream
    """
    import msgspec

    from ml_platform.lineage.graph import ColumnGraph
    from ml_platform.lineage.objects import Lineage, document_of
    from ml_platform.lineage.text_output import column_lines, dot

    lineage = _lineage()
    try:
        nodes = lineage.find(name)
    except LookupError as error:
        stop(str(error), WRONG)
    both = upstream == downstream
    graph = lineage.graph
    if direct:
        graph = ColumnGraph((edge for edge in graph.edges if edge.direct), graph.nodes)
    if format is GraphFormat.TEXT:
        for line in column_lines(graph, nodes, upstream=upstream or both, downstream=downstream or both):
            say(line)
        return
    part = graph.around(nodes, upstream=upstream or both, downstream=downstream or both)
    if format is GraphFormat.DOT:
        typer.echo(dot(part))
        return
    known = {one: lineage.info(one) for one in part.objects}
    typer.echo(msgspec.json.encode(document_of(Lineage(part, known, lineage.notes), "now")).decode())


@app.command()
def impact(
    name: Name,
    format: Annotated[Format, typer.Option(help="How it is written.")] = Format.TEXT,
) -> None:
    """List what breaks if a column is dropped; exit with code 1 if anything does, 2 if there is no such column.

    Example: ml-platform lineage impact raw.flights.dep_delay
    """
    import msgspec

    from ml_platform.lineage.impact import impact_of
    from ml_platform.lineage.text_output import impact_lines

    lineage = _lineage()
    try:
        result = impact_of(lineage, lineage.find(name))
    except LookupError as error:
        stop(str(error), WRONG)
    if format is Format.JSON:
        typer.echo(msgspec.json.encode(result).decode())
    else:
        for line in impact_lines(result):
            say(line)
    raise typer.Exit(1 if result.affected else 0)


@app.command()
def version(
    name: Annotated[str, typer.Argument(help="Model and version: my_model@7.")],
    format: Annotated[Format, typer.Option(help="How it is written.")] = Format.TEXT,
) -> None:
    """Show which rows of which tables made a version, and the commands that read them.

    Example: ml-platform lineage version flight_delay@7
    """
    import msgspec

    from ml_platform.lake.storage.tables import Lake
    from ml_platform.lineage.text_output import version_lines
    from ml_platform.lineage.version_sources import version_sources
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseStore

    match = _VERSION.fullmatch(name)
    if match is None:
        stop(f"wanted a model and a version, as in flight_delay@7; found {name!r}", WRONG)
    settings = Settings()
    try:
        sources = version_sources(
            Lake(settings.lake_uri),
            ReleaseStore(settings.releases_dir),
            _lineage(),
            match["model"],
            int(match["version"]),
        )
    except (LookupError, BundleRefused) as error:
        stop(str(error), WRONG)
    if format is Format.JSON:
        typer.echo(msgspec.json.encode(sources).decode())
        return
    for line in version_lines(sources):
        say(line)


@app.command()
def refresh() -> None:
    """Build the graph anew for the console and HTTP, which else is done when features or versions change."""
    from ml_platform.lineage.store import lineage_path

    lineage = _lineage()
    graph = lineage.graph
    say(
        f"{len(graph.objects)} objects, {len(graph.nodes):,} columns, {len(graph.edges):,} edges, in "
        f"{lineage_path(Settings())}"
    )
