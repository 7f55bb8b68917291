"""`ml-platform`: what people do from a terminal rather than in the Dagster UI."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.automl.cli import automl
from ml_platform.catalogue.cli import app as catalogue
from ml_platform.catalogue.lineage_cli import app as lineage
from ml_platform.catalogue.model_page.cli import page as model_page
from ml_platform.cost import cli as cost_cli
from ml_platform.cost.commands import metered_command
from ml_platform.doctor import cli as doctor_cli
from ml_platform.documentation import docs
from ml_platform.environments import EnvironmentUnknown
from ml_platform.features.catalogue.cli import features
from ml_platform.features.services.cli import lookup
from ml_platform.features.streaming import cli as feature_streams
from ml_platform.governance import audit_cli, keys_cli
from ml_platform.governance.access import access_cli, groups_cli, tags_cli
from ml_platform.governance.access.cli import deny, grant, revoke, run_statement
from ml_platform.governance.erasure.cli import app as forget
from ml_platform.lake.cli import quarantine, sql, tables
from ml_platform.login import cli as login_cli
from ml_platform.model_import.cli import app as models
from ml_platform.monitoring.alerts.cli import app as alerts
from ml_platform.monitoring.canary import cli as canary_cli
from ml_platform.monitoring.recalibration.cli import recalibrate
from ml_platform.monitoring.replay.cli import replay
from ml_platform.new_model.cli import app as new
from ml_platform.notebooks.cli import app as notebook
from ml_platform.private_files import private_umask
from ml_platform.promotion import (
    approvals_cli,
    composed_cli,
    environments_cli,
    feature_services_cli,
    traffic_cli,
)
from ml_platform.promotion.history_cli import history
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.promotion.reproduction.cli import reproduce
from ml_platform.scoring.cli import score_command
from ml_platform.settings import Settings
from ml_platform.sql_server.cli import sql_server
from ml_platform.stream_scoring.cli import app as streams
from ml_platform.terminal import INTERRUPTED, group_with_default, say, stop
from ml_platform.yaml_documents import SpecError

if TYPE_CHECKING:
    from ml_platform.lake.query.overlays import Overlays
    from ml_platform.lake.query.sql_functions import SqlFunctions
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.training.documents import Evaluation, ReleaseDecision

BUILD, MODELS, DATA, ACCESS, TERMINAL = "Make models", "What serves", "Tables and features", "Access", "This terminal"
Model = Annotated[str, typer.Argument(help="Name of the model, as in its defs.yaml.")]
REASON = "Why; it goes into the ledger and the endpoint document."


def _overlays(lake: "Lake") -> "Overlays":
    from ml_platform.features.training_sets.notebook_api import project_overlays

    return project_overlays(lake)


def _functions(lake: "Lake") -> "SqlFunctions":
    from ml_platform.scoring.sql_predict import project_functions

    return project_functions(lake.guard)


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Query tables, see and change what serves, manage keys. Everything else is in the Dagster UI (`make dev`).",
    pretty_exceptions_enable=False,
)


@app.command(rich_help_panel=MODELS)
def status(model: Annotated[str | None, typer.Argument(help="Only this one; all when left out.")] = None) -> None:
    """Show what serves and how it does: versions, drift and performance as last measured, and what is wrong now."""
    from ml_platform.monitoring.status_text import canary_lines, firing_lines, status_lines
    from ml_platform.promotion.composed_cli import composed_lines
    from ml_platform.registry.approved_release import way_into_service
    from ml_platform.registry.composition import CompositionStore
    from ml_platform.registry.manifest import describe_targets
    from ml_platform.registry.releases import ReleaseStore

    settings = Settings()
    store = ReleaseStore(settings.releases_dir)
    documents, damaged = store.readable_documents()
    composed, damaged_composed = CompositionStore(store).readable()
    unreadable = {**damaged, **damaged_composed}
    endpoints = {name: document for name, document in documents.items() if document.targets}
    retired = {name: document for name, document in documents.items() if document.is_retired}
    shown_otherwise = {*retired, *unreadable, *(endpoint.model for endpoint in endpoints.values())}
    waiting = {name: version for name, version in store.registered().items() if name not in shown_otherwise}
    known = {*endpoints, *retired, *waiting, *unreadable, *composed}
    if not known:
        say("Nothing is released yet: materialise a model's assets up to `release` in the Dagster UI.")
    elif model is not None and model not in known:
        stop(f"'{model}' is not released. Released are: {', '.join([*endpoints, *composed]) or 'none'}")
    shown = known if model is None else {model}
    for name in sorted(shown & retired.keys()):
        document = retired[name]
        say(f"{name}: retired, revision {document.revision} of {document.updated_at} by {document.updated_by}")
        say(f"  {document.reason}")
    for name in sorted(shown & waiting.keys()):
        say(f"{name}: version {waiting[name]} is registered, and none is released.")
        say(f"  Why is on `{name}/release` in the Dagster UI; to release it whatever the gate found:")
        say(f"  {way_into_service(store, name, waiting[name])}")
    for name in sorted(shown & endpoints.keys()):
        endpoint = endpoints[name]
        shares = describe_targets(endpoint.targets)
        say(f"{name}: {shares}; revision {endpoint.revision} of {endpoint.updated_at} by {endpoint.updated_by}")
        say(f"  {endpoint.reason}")
        for line in (*canary_lines(store, endpoint), *status_lines(settings, endpoint.model)):
            say(f"  {line}")
    for name in sorted(shown & composed.keys()):
        for line in (*composed_lines(store, composed[name]), *(f"  {line}" for line in firing_lines(settings, name))):
            say(line)
    unread = [f"{name}: {unreadable[name]}" for name in sorted(shown & unreadable.keys())]
    if unread:
        stop("\n".join(unread))


@app.command(rich_help_panel=MODELS)
def promote(
    model: Model,
    version: Annotated[int, typer.Argument(help="Version in the registry.")],
    reason: Annotated[str, typer.Option(help=REASON)],
) -> None:
    """Serve a registered version, whatever the gate found. Serving follows within a second.

    Example: ml-platform promote my_model 4 --reason "the gate was too strict"
    """
    from ml_platform.promotion.promote import RegistryBehind, promote_version
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseConflict

    try:
        settings = Settings()
        endpoint = promote_version(settings, model, version, by=promoter(settings, model), reason=reason)
    except (LookupError, ValueError, BundleRefused, ReleaseConflict, MayNotPromote) as error:
        stop(f"{model} version {version} was not promoted: {error}")
    except RegistryBehind as error:
        stop(str(error))
    say(f"{model} now serves version {version} (revision {endpoint.revision})")


@app.command(rich_help_panel=MODELS)
def rollback(model: Model, reason: Annotated[str, typer.Option(help=REASON)] = "by hand") -> None:
    """Serve the last state that differs; a second rollback undoes the first. Serving follows within a second."""
    from ml_platform.promotion.promote import RegistryBehind
    from ml_platform.promotion.promote import rollback as roll_back
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.manifest import describe_targets
    from ml_platform.registry.releases import ReleaseConflict

    try:
        settings = Settings()
        endpoint = roll_back(settings, model, by=promoter(settings, model), reason=reason)
    except (LookupError, ValueError, BundleRefused, ReleaseConflict, MayNotPromote) as error:
        stop(f"{model} was not rolled back: {error}")
    except RegistryBehind as error:
        stop(str(error))
    say(f"{model} now serves {describe_targets(endpoint.targets)} (revision {endpoint.revision})")


app.command(rich_help_panel=MODELS)(history)
app.command(rich_help_panel=MODELS)(reproduce)
app.command(rich_help_panel=MODELS)(recalibrate)
app.command(rich_help_panel=MODELS)(replay)
app.add_typer(new, name="new", rich_help_panel=BUILD)
app.command("automl", rich_help_panel=BUILD)(automl)
app.add_typer(notebook, name="notebook", rich_help_panel=BUILD)
app.add_typer(approvals_cli.app, name="approvals", rich_help_panel=MODELS)
app.add_typer(composed_cli.app, name="compose", rich_help_panel=MODELS)
app.add_typer(environments_cli.app, name="environments", rich_help_panel=MODELS)


@app.command(rich_help_panel=BUILD)
def run(model: Model) -> None:
    """Make all that a model needs, in order: sources, views, training, the gate's verdict and the release.

    Example: ml-platform run bank_calls
    """
    from ml_platform.orchestration.model_run import RunFailed, RunInterrupted, run_in_home
    from ml_platform.processes.platform import make_databases, platform_environment, ports, ui_address
    from ml_platform.processes.runner import CannotStart
    from ml_platform.project import current_project
    from ml_platform.promotion.power import power_beforehand
    from ml_platform.registry.releases import ReleaseConflict, ReleaseStore
    from ml_platform.registry.stored_documents import DocumentUnreadable

    try:
        promoter(Settings(), model, "train")
        promoter(Settings(), model)
        chosen = ports()
        make_databases(Settings())
        # From here on this process is one of the platform's own: same folders, same addresses.
        os.environ.update({"MLFLOW_LOGGING_LEVEL": "WARNING"} | platform_environment(Settings(), chosen))
        if (told := power_beforehand(ReleaseStore(Settings().releases_dir), model)) is not None:
            say(f"{told}.")
        done = run_in_home(current_project(), model, tell=say, dagster_url=ui_address("dagster", Settings(), chosen))
    except RunInterrupted as error:
        stop(str(error), INTERRUPTED)
    except (
        LookupError, CannotStart, RunFailed, SpecError, ReleaseConflict, DocumentUnreadable, MayNotPromote,
    ) as error:  # fmt: skip
        stop(str(error))
    for warning in done.warnings:
        say(f"warning: {warning}")
    _tell_verdict(done.decision, done.evaluation)


def _tell_verdict(decision: "ReleaseDecision", evaluation: "Evaluation") -> None:
    """Print what the gate found, and how to ask what serves."""
    from ml_platform.governance.keys import KeyStore
    from ml_platform.registry.approved_release import way_into_service
    from ml_platform.registry.example_request import curl_line, example_request
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.training.evaluation.guardrails.table import evaluation_lines

    settings, model = Settings(), decision.model
    say(f"The gate {'released' if decision.promoted else 'did not release'} version {decision.version} of {model}:")
    for reason in decision.reasons:
        say(f"  {reason}")
    for line in evaluation_lines(evaluation):
        say(f"  {line}")
    store = ReleaseStore(settings.releases_dir)
    if store.endpoint(model) is None:
        say(f"Nothing of {model} serves. To serve it all the same:")
        say(f"  {way_into_service(store, model, decision.version)}")
        return
    say("With the server up (`make dev`, or `python -m ml_platform.serving` alone), ask for a prediction:")
    in_use = KeyStore(settings.keys_dir).in_use()
    say(curl_line(settings.serving_url, model, example_request(store, model), with_key=in_use))


app.command("score", rich_help_panel=MODELS)(score_command(_overlays))
streams.command("features")(feature_streams.features)
app.add_typer(streams, name="stream", rich_help_panel=MODELS)
models.command("page")(model_page)
app.add_typer(models, name="models", rich_help_panel=MODELS)
app.command("traffic", rich_help_panel=MODELS)(traffic_cli.traffic)
app.add_typer(canary_cli.app, name="canary", rich_help_panel=MODELS)
app.add_typer(alerts, name="alerts", rich_help_panel=MODELS)
app.command("sql", rich_help_panel=DATA)(sql.sql_command(_overlays, _functions, run_statement))
features_app = typer.Typer(
    cls=group_with_default("list"),
    help="List feature views, look features up, publish feature services. `features <view>` is `features list <view>`.",
)
features_app.command("list")(features)
features_app.command("lookup")(lookup)
features_app.command("services")(feature_services_cli.services)
features_app.command("publish")(feature_services_cli.publish)
features_app.command("withdraw")(feature_services_cli.withdraw)
app.command("sql-server", rich_help_panel=DATA)(sql_server)
app.add_typer(features_app, name="features", rich_help_panel=DATA)
app.add_typer(catalogue, name="catalogue", rich_help_panel=DATA)
app.add_typer(tables.app, name="tables", rich_help_panel=DATA)
app.add_typer(quarantine.app, name="quarantine", rich_help_panel=DATA)
app.add_typer(lineage, name="lineage", rich_help_panel=DATA)
app.add_typer(keys_cli.app, name="keys", rich_help_panel=ACCESS)
app.command("grant", rich_help_panel=ACCESS)(grant)
app.command("revoke", rich_help_panel=ACCESS)(revoke)
app.command("deny", rich_help_panel=ACCESS)(deny)
app.add_typer(access_cli.app, name="access", rich_help_panel=ACCESS)
app.add_typer(groups_cli.app, name="groups", rich_help_panel=ACCESS)
app.add_typer(tags_cli.app, name="tags", rich_help_panel=ACCESS)
app.add_typer(login_cli.app, name="accounts", rich_help_panel=ACCESS)
app.command("login-server", rich_help_panel=ACCESS)(login_cli.login_server)
app.add_typer(audit_cli.app, name="audit", rich_help_panel=ACCESS)
app.add_typer(forget, name="forget", rich_help_panel=ACCESS)
app.add_typer(cost_cli.app, name="cost", rich_help_panel=ACCESS)


app.command("docs", rich_help_panel=TERMINAL)(docs)
app.command("doctor", rich_help_panel=TERMINAL)(doctor_cli.doctor)
app.command("settings", rich_help_panel=TERMINAL)(doctor_cli.settings)


@app.command(rich_help_panel=TERMINAL)
def env() -> None:
    """Print the shell commands that put a terminal on the project's state: `eval "$(.venv/bin/ml-platform env)"`."""
    from ml_platform.processes.platform import platform_environment, ports
    from ml_platform.processes.runner import CannotStart

    try:
        environment = platform_environment(Settings(), ports())
    except CannotStart as error:
        stop(str(error))
    typer.echo(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    for name, value in environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def main() -> None:
    """Run the command line."""
    private_umask()
    try:
        with metered_command(sys.argv[1:]):
            app()
    except (SpecError, EnvironmentUnknown) as error:  # of environments.yaml, which any command reads
        sys.exit(f"ml-platform: {error}")
    except Exception as error:
        from ml_platform.registry.outages import registry_outage

        if (outage := registry_outage(error)) is None:
            raise
        sys.exit(f"ml-platform: {outage}")
