"""`ml-platform replay`: a challenger over the logged requests of the last days."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings
from ml_platform.terminal import fault_of, say, stop
from ml_platform.yaml_documents import SpecError

if TYPE_CHECKING:
    from ml_platform.monitoring.replay.replay import Challenger
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.tracking import Tracker

EXIT_CODES = {"better": 0, "no difference shown": 0, "worse": 3, "insufficient data": 4}


def replay(  # noqa: PLR0917 - options
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[int | None, typer.Option(help="The challenger; the newest version when left out.")] = None,
    run: Annotated[
        str | None, typer.Option(help="Or the candidate of a training: the id of its run in MLflow.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How many, up to the newest logged answer.")] = 7,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Compare what it answered as a shadow, instead of running it now.")
    ] = False,
    to: Annotated[Path | None, typer.Option(help="File to write the report to as well, .html or .json.")] = None,
) -> None:
    """Run a version over the logged requests of the last days, and compare its answers with the champion's.

    Ends with 0 when it is better or no difference is shown, 3 when it is worse, 4 when the data do not say, and 1 when
    there is no such version.

    Example: ml-platform replay my_model --version 4 --days 7
    """
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.monitoring.replay import replay as engine
    from ml_platform.monitoring.replay.keep import keep
    from ml_platform.monitoring.replay.pages import replay_html, replay_text
    from ml_platform.promotion.declared import declared_model
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.tracking import Tracker

    if to is not None and to.suffix not in {".html", ".json"}:
        stop(f"--to: wanted a file that ends in .html or .json, found '{to}'")
    if version is not None and run is not None:
        stop("--version and --run both name the challenger; leave one out")
    try:
        settings = Settings()
        declared = declared_model(current_project().defs, model)
        store, tracker = ReleaseStore(settings.releases_dir), Tracker(settings)
        challenger = _challenger(store, tracker, model, version, run)
        if shadow and challenger.version is None:
            stop("--shadow: a run's candidate is no shadow; name a version")
        report = engine.replay(Lake(settings.lake_uri), store, declared, challenger, days=days, shadow=shadow)
        keep(store, tracker, report)
        if to is not None:
            to.write_text(replay_html(report) if to.suffix == ".html" else report.model_dump_json(indent=2), "utf-8")
    except (LookupError, ValueError, BundleRefused, OSError, SpecError, ProjectNotFound, EnvironmentUnknown) as error:
        stop(fault_of(model, error))
    for line in replay_text(report):
        say(line)
    raise typer.Exit(EXIT_CODES[report.verdict])


def _challenger(
    store: "ReleaseStore", tracker: "Tracker", model: str, version: int | None, run: str | None
) -> "Challenger":
    """Find the challenger (raises LookupError)."""
    from ml_platform.monitoring.replay.replay import Challenger

    if run is not None:
        if not tracker.has_run(run):
            raise LookupError(f"MLflow has no run {run}")
        digest = tracker.client.get_run(run).data.tags.get("bundle_digest")
        if digest is None:
            raise LookupError(f"run {run} made no bundle: name one that trained a model")
        return Challenger(digest, f"the candidate of run {run[:12]}")
    known = store.versions(model)
    number = version if version is not None else max(known, default=0)
    if number not in known:
        raise LookupError(f"no version {number} is registered; there are {sorted(known) or 'none'}")
    return Challenger(known[number], f"version {number}", number)
