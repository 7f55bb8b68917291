"""`ml-platform models`: what becomes of a model as a whole."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.promotion import notes_cli
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import fault_of, say, stop
from ml_platform.yaml_documents import SpecError

if TYPE_CHECKING:
    from ml_platform.features.views.view import FeatureView
    from ml_platform.promotion.retire import ModelUse

app = typer.Typer(
    no_args_is_help=True, help="Import a model; show, archive, compare versions; see what the gate can tell."
)


@app.callback()
def models() -> None:
    """Import a model; show, archive, compare versions; see what the gate can tell; retire a model."""


notes_cli.add_to(app)


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[int | None, typer.Argument(help="Version; the newest that has a card when left out.")] = None,
    to: Annotated[
        Path | None, typer.Option(help="File to write it to, .html or .md; in this terminal when left out.")
    ] = None,
) -> None:
    """Show what a version is for, what made it, how good it is, where it fails and when it served, for people.

    Example: ml-platform models card my_model 3 --to card.html
    """
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.registry.card_pages import card_html, card_markdown
    from ml_platform.registry.lost_data import lost_of
    from ml_platform.registry.model_card import carded_versions, load_card
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.stored_documents import DocumentUnreadable

    settings = Settings()
    store = ReleaseStore(settings.releases_dir)
    if to is not None and to.suffix not in {".html", ".md"}:
        stop(f"--to: wanted a file that ends in .html or .md, found '{to}'")
    try:
        written = load_card(store, model, version or max(carded_versions(store, model), default=1))
        lost = lost_of(Lake(settings.lake_uri), store, written)
        is_html = to is not None and to.suffix == ".html"
        page = card_html(store, written, lost=lost) if is_html else card_markdown(store, written, lost=lost)
        if to is None:
            for line in page.splitlines():
                say(line)
            return
        to.write_text(page, encoding="utf-8")
    except (LookupError, ValueError, DocumentUnreadable, OSError) as error:
        stop(str(error))
    say(f"{to}: version {written.version} of {model}")


@app.command()
def compare(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    versions: Annotated[list[int], typer.Argument(help="Two versions or more; gains are over the first.")],
    to: Annotated[Path | None, typer.Option(help="HTML file to write it to; in this terminal when left out.")] = None,
) -> None:
    """Compare versions: how each was made, and all on the same rows that none has learned from.

    Example: ml-platform models compare my_model 3 4 --to compared.html
    """
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.promotion.compare import compare_versions
    from ml_platform.promotion.comparison_pages import comparison_html, comparison_text
    from ml_platform.promotion.declared import declared_model
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseStore

    if to is not None and to.suffix != ".html":
        stop(f"--to: wanted a file that ends in .html, found '{to}'")
    try:
        settings, found = Settings(), declared_model(current_project().defs, model)
        store = ReleaseStore(settings.releases_dir)
        lake, spec = Lake(settings.lake_uri), found.spec
        compared = compare_versions(lake, store, spec, found.folder, found.views, versions=versions)
        if to is not None:
            to.write_text(comparison_html(compared), encoding="utf-8")
    except (LookupError, ValueError, BundleRefused, OSError, SpecError, ProjectNotFound, EnvironmentUnknown) as error:
        stop(fault_of(model, error))
    names = " and ".join(map(str, versions))
    for line in comparison_text(compared) if to is None else [f"{to}: versions {names} of {model}"]:
        say(line)


@app.command()
def chart(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    metric: Annotated[str | None, typer.Option(help="Which metric; that of the gate when left out.")] = None,
    to: Annotated[Path | None, typer.Option(help="HTML file to write it to; in this terminal when left out.")] = None,
) -> None:
    """Chart one metric over all versions of a model, with intervals, and mark which began to serve when.

    Example: ml-platform models chart my_model --metric roc_auc --to chart.html
    """
    from ml_platform.promotion.comparison_pages import chart_html
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.stored_documents import DocumentUnreadable
    from ml_platform.registry.version_chart import chart_versions

    if to is not None and to.suffix != ".html":
        stop(f"--to: wanted a file that ends in .html, found '{to}'")
    try:
        drawn = chart_versions(ReleaseStore(Settings().releases_dir), model, metric)
        if to is not None:
            to.write_text(chart_html(drawn), encoding="utf-8")
    except (LookupError, ValueError, DocumentUnreadable, OSError, EnvironmentUnknown) as error:
        stop(str(error))
    for line in drawn.lines() if to is None else [f"{to}: {drawn.metric} of {len(drawn.points)} versions of {model}"]:
        say(line)


@app.command()
def power(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    blocks: Annotated[
        int | None,
        typer.Option(min=2, help="Also for so many blocks of holdout: days, unless promotion.block says else."),
    ] = None,
    gain: Annotated[
        float | None, typer.Option(help="A true gain in the gate's metric; the last one observed when left out.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(min=0.05, max=0.999, help="Wanted probability of passing; 0.8.")
    ] = None,
) -> None:
    """Show how large a gain the gate can see in how many days of holdout, from how much the last comparison varied.

    Example: ml-platform models power my_model --gain 0.004 --blocks 56
    """
    from ml_platform.promotion.power import measured_power, power_lines
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.stored_documents import DocumentUnreadable

    try:
        measured = measured_power(ReleaseStore(Settings().releases_dir), model)
        lines = power_lines(measured, blocks=blocks, gain=gain, share=share)
    except (LookupError, ValueError, DocumentUnreadable) as error:
        stop(str(error))
    for line in lines:
        say(line)


@app.command()
def prune(  # noqa: PLR0917 - typer takes options as arguments
    model: Annotated[str | None, typer.Argument(help="Only of this model; of all when left out.")] = None,
    keep_last: Annotated[int, typer.Option(min=0, help="Newest versions of each model that stay whole.")] = 5,
    younger_than: Annotated[int, typer.Option(min=0, help="Days; what is younger stays.")] = 30,
    bundles: Annotated[
        bool, typer.Option("--bundles", help="Also bundles of registered versions, which stay registered without.")
    ] = False,
    served: Annotated[bool, typer.Option("--served", help="Also what has served, but for the last rollback.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it; without, what would be removed is shown alone.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; versions without a bundle say so.")] = "pruned by hand",
) -> None:
    """Show which bundles, MLflow runs and files of searches nothing needs, and why others stay; --yes removes them.

    Example: ml-platform models prune my_model --keep-last 3 --younger-than 60
    """
    from datetime import timedelta

    from ml_platform.promotion.prune import plan_prune
    from ml_platform.promotion.prune import prune as remove
    from ml_platform.promotion.prune_item import Retention
    from ml_platform.registry.stored_documents import DocumentUnreadable

    retention = Retention(timedelta(days=younger_than), keep_last, versions=bundles, served=served)
    try:
        settings = Settings()
        by = promoter(settings) if yes else ""
        items = plan_prune(settings, retention, model)
        for item in items:
            fate = f"stays: {item.keep}" if item.keep else ("goes" if yes else "would go")
            say(f"{item.kind} {item.name[:12]}  {item.model or '-'}, {item.about}  {item.size:,} bytes  {fate}")
        going = [item for item in items if not item.keep]
        size = sum(item.size for item in going)
        if not yes:
            say(f"{len(going)} of {len(items)} would go, {size:,} bytes. To remove them: --yes")
            return
    except (LookupError, ValueError, DocumentUnreadable, MayNotPromote, EnvironmentUnknown) as error:
        stop(f"Nothing was pruned: {error}")
    try:
        done = remove(settings, items, by=by, reason=reason)
    except (LookupError, ValueError, OSError, DocumentUnreadable) as error:
        stop(f"The pruning ended before its end: {error}. The same command goes on with what is left.")
    say(f"{done.items} of {len(items)} are removed, {done.size:,} bytes are free")
    if done.items < len(going):
        say(f"{len(going) - done.items} were gone or in use by then.")


@app.command()
def retire(
    model: Annotated[str, typer.Argument(help="Name of the model, whether or not defs/ still declares it.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger and the endpoint document.")] = "by hand",
    yes: Annotated[bool, typer.Option("--yes", help="Retire it; without, what uses it is shown alone.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even while it serves, or something reads what it has made.")
    ] = False,
) -> None:
    """Show what serves, trains or reads a model; with --yes take it out of service for good and archive its versions.

    Example: ml-platform models retire my_model --yes --force --reason "replaced by other_model"
    """
    from ml_platform.features.views.load import load_views
    from ml_platform.promotion.pinned import Pins
    from ml_platform.promotion.promote import RegistryBehind
    from ml_platform.promotion.retire import retire as retire_model
    from ml_platform.promotion.retire import use_of
    from ml_platform.registry.releases import ReleaseConflict
    from ml_platform.spec_yaml import check_project

    try:
        settings, defs = Settings(), current_project().defs
        views = load_views(defs / "features")
        specs = check_project(defs, _columns(views))
        use = use_of(settings, model, specs, views)
        _tell(use)
        if use.retired and not use.endpoints:
            say(f"{model} is retired already.")
            return
        pinned = Pins(settings, defs).of(model)
        for pin in pinned:
            say(f"  {pin}")
        blocking = [
            *(f"{name} serves it" for name in use.endpoints),
            *(f"{reader} reads it" for reader in use.readers),
            *pinned,
        ]
        if not yes:
            stop("Nothing was changed. To retire it: --yes" + (" --force" if blocking else ""))
        if blocking and not force:
            stop(f"{model} was not retired: {'; '.join(blocking)}. To retire it all the same: --force")
        documents = retire_model(settings, model, by=promoter(settings, model), reason=reason)
    except (LookupError, ReleaseConflict, SpecError, ProjectNotFound, MayNotPromote, EnvironmentUnknown) as error:
        stop(f"{model} was not retired: {error}")
    except RegistryBehind as error:
        stop(str(error))
    for document in documents:
        say(f"{document.name} is retired (revision {document.revision}); the server answers 410.")
    if use.declared_in is not None:
        say(f"Now remove {use.declared_in}: until then its schedules go on training, and nothing of it is released.")
    say("Its versions, tables and history stay. To put a version back:")
    say(f'  ml-platform promote {model} <version> --reason "…"')


def _tell(use: "ModelUse") -> None:
    facts = {
        "served by": [f"{name}: {versions}" for name, versions in use.endpoints.items()],
        "versions": [", ".join(map(str, use.versions))] if use.versions else [],
        "declared in": [use.declared_in] if use.declared_in else [],
        "started by itself": list(use.schedules),
        "read by": list(use.readers),
        "looks up alone": list(use.looks_up),
        "tables": list(use.tables),
    }
    say(use.model)
    for name, lines in facts.items():
        say(f"  {name:<17} {'; '.join(lines) or 'nothing'}")


def _columns(views: "Mapping[str, FeatureView]") -> dict[str, Collection[str]]:
    return {name: view.columns.keys() for name, view in views.items()}
