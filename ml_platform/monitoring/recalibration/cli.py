"""`ml-platform recalibrate`: probabilities and intervals up to date with the labels that have come."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.instants import read_instant
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop
from ml_platform.yaml_documents import SpecError, unknown

if TYPE_CHECKING:
    from ml_platform.monitoring.recalibration.recalibrate import RecalibrationReport


def recalibrate(
    model: Annotated[str, typer.Argument(help="Name of the model, as in its defs.yaml.")],
    until: Annotated[
        str | None,
        typer.Option(help="Instant, as 2026-01-31T12:00 (UTC without offset): only answers and labels up to then."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    resume: Annotated[
        str | None,
        typer.Option(help="Why calibrations may be released again, after one was taken back. Then goes on."),
    ] = None,
) -> None:
    """Learn probabilities anew on the newest labelled answers, release them if they are no worse, adapt intervals.

    Nothing is trained: the new version is the one that serves, with other numbers at the end of its graph.

    Example: ml-platform recalibrate my_model --dry-run
    """
    from ml_platform.features.views.load import load_views
    from ml_platform.monitoring.recalibration.recalibrate import recalibrate as recalibrate_model
    from ml_platform.monitoring.recalibration.resume import resume_recalibration
    from ml_platform.promotion.promote import RegistryBehind
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseConflict
    from ml_platform.spec_yaml import check_project

    try:
        settings, defs = Settings(), current_project().defs
        columns = {name: view.columns.keys() for name, view in load_views(defs / "features").items()}
        specs = {spec.name: (spec, path.parent) for path, spec in check_project(defs, columns).items()}
        if model not in specs:
            raise LookupError(unknown(model, specs, what="model"))
        spec, folder = specs[model]
        if resume is not None:
            if dry_run:
                raise ValueError("--resume changes something, --dry-run does not: leave one of them out")
            say(resume_recalibration(settings, model, by=promoter(settings, model), reason=resume))
        report = recalibrate_model(
            settings, spec, folder, by=promoter(settings, model), until=_instant(until), dry_run=dry_run
        )
    except (
        *(LookupError, ValueError, OverflowError, BundleRefused, ReleaseConflict, MayNotPromote),
        *(OSError, SpecError, ProjectNotFound, EnvironmentUnknown),
    ) as error:
        stop(f"{model} was not recalibrated: {error}")
    except RegistryBehind as error:
        stop(str(error))
    for line in report_lines(report):
        say(line)


def report_lines(report: "RecalibrationReport") -> list[str]:
    """What became of a model, in lines for a terminal."""
    if report.new_version is None:
        done = f"{report.model}: version {report.version} serves as before"
    else:
        state = "waits"
        if report.released:
            state = "serves" if report.percent == 100 else f"serves {report.percent:g} % as a canary"
        done = f"{report.model}: version {report.new_version} {state}, recalibrated from version {report.version}"
    return [f"{done} ({report.labelled_rows:,} labelled answers)", *(f"  {reason}" for reason in report.reasons)]


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    return read_instant(text, recorded=True).astimezone(UTC)
