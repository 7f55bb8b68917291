"""`ml-platform score`: scores the rows of a table, a file or a query by any version of a model."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    from ml_platform.lake.query.overlays import Overlays
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.scoring.run import ScoringReport


class Executor(StrEnum):
    """Where parts are scored."""

    AUTO = "auto"
    LOCAL = "local"
    RAY = "ray"


class Lookups(StrEnum):
    """Which row of a view counts."""

    AUTO = "auto"
    POINT_IN_TIME = "point-in-time"
    LATEST = "latest"


class Mode(StrEnum):
    """What becomes of the rows that the same source gave before."""

    REPLACE = "replace"
    APPEND = "append"


class Duplicates(StrEnum):
    """What becomes of ids that more than one row has."""

    REFUSE = "refuse"
    KEEP = "keep"


def score_command(overlays_of: "Callable[[Lake], Overlays]") -> Callable[..., None]:
    """Make the command, given a function that makes the overlays for a lake."""

    def score(  # noqa: PLR0917 - as typer wants it
        model: Annotated[str, typer.Argument(help="The model: my_model, my_model@champion, or my_model@v3.")],
        source: Annotated[
            str,
            typer.Option("--from", help="Table (raw/orders, raw/orders@3), CSV, Parquet, JSON lines, folder, SELECT."),
        ],
        to: Annotated[str, typer.Option(help="Table (scores/orders), or a file that ends in .parquet or .csv.")],
        mode: Annotated[
            Mode, typer.Option(help="A table's rows of the same source are replaced, or stay beside the new ones.")
        ] = Mode.REPLACE,
        lookups: Annotated[
            Lookups, typer.Option(help="Views' rows as known at the row's instant, or the newest; auto: as rows allow.")
        ] = Lookups.AUTO,
        time: Annotated[
            str | None, typer.Option(help="Column with a row's instant, for a model whose requests have none.")
        ] = None,
        id: Annotated[
            str | None, typer.Option(help="Column that identifies a row; the model's own by default.")
        ] = None,
        keep: Annotated[
            list[str] | None, typer.Option(help="Column to write beside the scores, * for all; may be repeated.")
        ] = None,
        features: Annotated[bool, typer.Option("--features", help="Write the model's features too.")] = False,
        explain: Annotated[int, typer.Option(min=0, help="Write this many features that add most to each score.")] = 0,
        interval: Annotated[
            float | None, typer.Option(help="Write intervals, or sets of classes, of this level: 0.9.")
        ] = None,
        duplicates: Annotated[
            Duplicates, typer.Option(help="Whether ids that more than one row has are an error.")
        ] = Duplicates.REFUSE,
        name: Annotated[
            str | None, typer.Option(help="What the source is called in the output; by default table, path or query.")
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
        executor: Annotated[
            Executor, typer.Option(help="In this process, or on Ray; auto: on Ray where RAY_ADDRESS names a cluster.")
        ] = Executor.AUTO,
    ) -> None:
        """Score rows by any version of a model; the same call again goes on after a kill, and doubles nothing.

        Examples: ml-platform score my_model --from raw/orders --to scores/orders;
        ml-platform score my_model@v3 --from new.csv --to scored.csv --keep "*" --explain 3
        """
        import duckdb
        import polars as pl

        from ml_platform.distribution import ExtraMissing
        from ml_platform.features.views.load import load_views
        from ml_platform.features.views.recorded_definitions import ViewChanged
        from ml_platform.governance.access.objects import CatalogueObject
        from ml_platform.governance.access.speaker import require
        from ml_platform.lake.storage.tables import Lake
        from ml_platform.project import current_project
        from ml_platform.registry.digests import BundleRefused
        from ml_platform.scoring.run import AlreadyRunning, Wanted
        from ml_platform.scoring.run import score as run

        settings = Settings()
        wanted = Wanted(
            model=model, source=source, target=to, mode=mode.value, lookups=lookups.value, time=time, id_column=id,
            keep=tuple(keep or ()), features=features, explain=explain, interval=interval, duplicates=duplicates.value,
            overwrite=overwrite, name=name, executor=executor.value,
        )  # fmt: skip
        try:
            base = CatalogueObject("endpoint", (model.partition("@")[0],))
            require(settings, "explain" if explain else "predict", base, role="explain" if explain else "predict")
            with _progress() as on_progress:
                report = run(
                    settings,
                    wanted,
                    lambda: load_views(current_project().defs / "features"),
                    overlays=overlays_of(Lake(settings.lake_uri)),
                    on_progress=on_progress,
                )
        except (
            LookupError, ValueError, OSError, BundleRefused, ViewChanged, AlreadyRunning, ExtraMissing, duckdb.Error
        ) as error:  # fmt: skip
            stop(f"Nothing was written to {to}: {error}")
        except pl.exceptions.PolarsError as error:
            stop(f"Nothing was written to {to}: the rows cannot be read: {error}")
        for line in report_lines(report):
            say(line)

    return score


def report_lines(report: "ScoringReport") -> Iterator[str]:
    """What a scoring did, in lines."""
    if report.repeated:
        refused = f" ({report.refused:,} more were refused, in {report.quarantine})" if report.refused else ""
        yield (
            f"{report.output} has the {report.scored:,} scored rows of {report.source} by {report.model} version "
            f"{report.version} already{refused}; nothing was to be done."
        )
        return
    yield (
        f"{report.model} version {report.version}: {report.read:,} rows of {report.source} read, "
        f"{report.scored:,} scored, {report.refused:,} refused. Written to {report.output}."
    )
    if report.lookups != "none":
        how = "as known at each row's instant" if report.lookups == "point-in-time" else "the newest rows of the views"
        yield f"Look-ups: {how}."
    if report.absent:
        yield f"Null in every row, since the source has no such column: {', '.join(report.absent)}."
    if report.unscored:
        yield f"{report.unscored:,} scored rows have a score that is not finite."
    if report.refused:
        yield f"Refused, and kept in {report.quarantine}: {_counts(report.refusals)}"
        yield from (f"  {example}" for example in report.examples)
    if report.flagged:
        yield f"Scored with a flag: {_counts(report.flagged)}"


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} ({count:,})" for kind, count in sorted(values.items()))


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Draw a bar of the rows on the terminal; nothing where there is none."""
    if not sys.stderr.isatty():
        yield lambda _done, _rows: None
        return
    with ExitStack() as stack:
        bar: Any = None

        def draw(done: int, rows: int) -> None:
            nonlocal bar
            if bar is None:
                made = typer.progressbar(length=max(rows, 1), label="rows", show_pos=True, file=sys.stderr)
                bar = stack.enter_context(made)
            bar.update(done - bar.pos)

        yield draw
