"""`ml-platform`: what people do from a terminal that is not a run in the Dagster UI."""

import getpass
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.features.cli import features
from ml_platform.governance import audit_cli, keys_cli
from ml_platform.lake import quarantine_cli, sql_cli, tables_cli
from ml_platform.registry import traffic_cli
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from ml_platform.lake.overlays import Overlays
    from ml_platform.lake.tables import Lake


def _overlays(lake: "Lake") -> "Overlays":
    from ml_platform.features.notebook import project_overlays

    return project_overlays(lake)


app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.command("sql")(sql_cli.sql_command(_overlays))
app.command("features")(features)
app.command("traffic")(traffic_cli.traffic)
app.add_typer(tables_cli.app, name="tables")
app.add_typer(quarantine_cli.app, name="quarantine")
app.add_typer(keys_cli.app, name="keys")
app.add_typer(audit_cli.app, name="audit")
Model = Annotated[str, typer.Argument(help="Name of the model, as in its defs.yaml.")]


@app.command()
def status() -> None:
    """Show what serves: every endpoint with its version, revision, and why it is so."""
    from ml_platform.registry.releases import ReleaseStore, describe_targets

    endpoints = ReleaseStore(Settings().releases_dir).endpoints()
    if not endpoints:
        typer.echo("Nothing is released yet: materialise a model's assets up to `release` in the Dagster UI.")
    for name, endpoint in endpoints.items():
        shares = describe_targets(endpoint.targets)
        typer.echo(f"{name}: {shares}; revision {endpoint.revision} of {endpoint.updated_at} by {endpoint.updated_by}")
        typer.echo(f"  {endpoint.reason}")


@app.command()
def env() -> None:
    """Print what makes a terminal the project's, without telemetry: `eval "$(.venv/bin/ml-platform env)"`."""
    from ml_platform.processes import CannotStart, platform_environment, ports

    try:
        environment = platform_environment(Settings(), ports())
    except CannotStart as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    for name, value in environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def rollback(
    model: Model,
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger and the endpoint document.")] = "by hand",
) -> None:
    """Serve the version that served before. Serving follows within a second."""
    from ml_platform.registry.promotion import rollback as roll_back

    try:
        endpoint = roll_back(Settings(), model, by=getpass.getuser(), reason=reason)
    except (LookupError, ValueError) as error:
        typer.echo(f"{model} was not rolled back: {error}", err=True)
        raise typer.Exit(1) from None
    versions = ", ".join(str(target.version) for target in endpoint.targets)
    typer.echo(f"{model} now serves version {versions} (revision {endpoint.revision})")


@app.command()
def promote(
    model: Model,
    version: Annotated[int, typer.Argument(help="Version in the registry.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger and the endpoint document.")],
) -> None:
    """Serve a registered version, whatever the gate found. It takes a reason."""
    from ml_platform.registry.promotion import promote_version

    try:
        endpoint = promote_version(Settings(), model, version, by=getpass.getuser(), reason=reason)
    except (LookupError, ValueError) as error:
        typer.echo(f"{model} version {version} was not promoted: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{model} now serves version {version} (revision {endpoint.revision})")


@app.command()
def history(model: Model) -> None:
    """List every change of what a model serves, newest first."""
    from ml_platform.registry.releases import ReleaseStore, describe_targets

    store = ReleaseStore(Settings().releases_dir)
    documents = store.history(model)
    if not documents:
        typer.echo(f"'{model}' was never released. Known: {', '.join(store.endpoints()) or 'none'}")
        raise typer.Exit(1)
    for document in reversed(documents):
        serving = describe_targets(document.targets)
        typer.echo(
            f"{document.revision:>4}  {document.updated_at}  {document.action}: {serving}  by {document.updated_by}"
        )
        typer.echo(f"      {document.reason}")


def main() -> None:
    """Run the command line."""
    app()
