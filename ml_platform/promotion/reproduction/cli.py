"""`ml-platform reproduce`: a registered version, made again from what was recorded of it."""

from pathlib import Path
from typing import Annotated

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.processes.identity import this_user
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

EXIT_CODES = {"equal": 0, "differs": 3, "partly": 4, "not reproduced": 4}


def reproduce(
    version: Annotated[str, typer.Argument(help="Which one: my_model@3, my_model@champion or @challenger.")],
    search: Annotated[
        bool, typer.Option("--search", help="Repeat the search for parameters too, in this process.")
    ] = False,
    same_environment: Annotated[
        bool, typer.Option("--same-environment", help="Refuse where scores may depend on what differs here.")
    ] = False,
    to: Annotated[Path | None, typer.Option(help="File to write the report to as well, .html or .json.")] = None,
) -> None:
    """Make a version again from its pinned tables, and say whether it is the same; nothing is registered or released.

    Ends with 0 when it is equal, 3 when something differs, 4 when it could not be made again, or only in part, and 1
    when there is no such version.

    Example: ml-platform reproduce my_model@champion
    """
    import msgspec

    from ml_platform.lake.storage.tables import Lake
    from ml_platform.promotion.candidate import parse_reference, version_number
    from ml_platform.promotion.reproduction import reproduce as engine
    from ml_platform.promotion.reproduction.keep import keep
    from ml_platform.promotion.reproduction.pages import reproduction_html, reproduction_text
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.stored_documents import DocumentUnreadable
    from ml_platform.registry.tracking import Tracker

    if to is not None and to.suffix not in {".html", ".json"}:
        stop(f"--to: wanted a file that ends in .html or .json, found '{to}'")
    try:
        settings, (model, which) = Settings(), parse_reference(version)
        store, tracker = ReleaseStore(settings.releases_dir), Tracker(settings)
        report = engine.reproduce(
            Lake(settings.lake_uri),
            store,
            current_project().defs,
            model,
            version_number(store, tracker, model, which),
            by=this_user(),
            search=search,
            same_environment=same_environment,
        )
        notes = keep(store, tracker, report)
        if to is not None:
            as_json = msgspec.json.format(msgspec.json.encode(report), indent=2)
            to.write_bytes(reproduction_html(report).encode() if to.suffix == ".html" else as_json)
    except (LookupError, ValueError, DocumentUnreadable, OSError, ProjectNotFound, EnvironmentUnknown) as error:
        stop(str(error))
    for line in reproduction_text(report):
        say(line)
    for note in notes:
        say(f"  {note}")
    raise typer.Exit(EXIT_CODES[report.verdict])
