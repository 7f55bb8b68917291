"""`ml-platform alerts …`: what goes on, who knows of it, and what waits to be sent."""

import getpass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ml_platform.settings import Settings
from ml_platform.terminal import stop

app = typer.Typer(no_args_is_help=True, help="Show, acknowledge and silence alerts; send those that wait.")
Model = Annotated[str, typer.Argument(help="The model, as `alerts list` shows it.")]
Kind = Annotated[str, typer.Argument(help="What goes on, such as no_drift.")]
Subject = Annotated[str, typer.Argument(help="What of the model, where `alerts list` shows one.")]


@app.command("list")
def list_alerts(every: Annotated[bool, typer.Option("--all", help="Also what is resolved.")] = False) -> None:
    """List what fires: since when, how often it was seen and notified, who knows of it."""
    from ml_platform.monitoring.alerts.alert import waiting_alerts
    from ml_platform.monitoring.alerts.conditions import conditions

    settings = Settings()
    shown = [state for state in conditions(settings) if every or state.state == "firing"]
    for state in shown:
        span = f"{state.starts:%Y-%m-%d %H:%M}" + (f" to {state.ends:%Y-%m-%d %H:%M}" if state.ends else "")
        typer.echo(f"{state.state}  {state.name}  {state.severity}: {state.title}")
        known = f"; acknowledged by {state.acknowledged_by}" if state.acknowledged_by else ""
        if state.silenced_until and state.silenced_until > datetime.now(UTC):
            known += f"; silent until {state.silenced_until:%Y-%m-%d %H:%M}"
        typer.echo(f"  {span} UTC; seen {state.occurrences} times, notified {state.notifications} times{known}")
        if state.body:
            typer.echo(f"  {state.body}")
    if not shown:
        typer.echo("Nothing fires.")
    if waiting := waiting_alerts(settings):
        typer.echo(f"{len(waiting)} alerts wait for the webhook; `ml-platform alerts send` sends them now.")


@app.command()
def acknowledge(model: Model, kind: Kind, subject: Subject = "") -> None:
    """Say that you know: it is not told again until it ends."""
    from ml_platform.monitoring.alerts.conditions import acknowledge as mark

    try:
        state = mark(Settings(), model, kind, subject, by=getpass.getuser())
    except LookupError as error:
        stop(str(error))
    typer.echo(f"{state.name}: acknowledged by {state.acknowledged_by}; its end will be told.")


@app.command()
def silence(
    model: Model,
    kind: Kind,
    subject: Subject = "",
    hours: Annotated[float, typer.Option(min=0.0, max=87_600.0, help="How long; ten years at most.")] = 24.0,
) -> None:
    """Tell nothing of it for some hours, not even that it ended."""
    from ml_platform.monitoring.alerts.conditions import silence as mute

    try:
        state = mute(Settings(), model, kind, subject, until=datetime.now(UTC) + timedelta(hours=hours))
    except LookupError as error:
        stop(str(error))
    typer.echo(f"{state.name}: silent until {state.silenced_until:%Y-%m-%d %H:%M} UTC.")


@app.command()
def send() -> None:
    """Send what waits to the webhook, as the Dagster daemon does twice a minute; exit with code 1 if some is left."""
    from ml_platform.monitoring.alerts.alert import AlertSettings, waiting_alerts
    from ml_platform.monitoring.alerts.delivery import deliver_alerts

    settings = Settings()
    if not AlertSettings().webhook_url:
        stop("no webhook is set: ML_PLATFORM_ALERT_WEBHOOK_URL names it")
    delivery = deliver_alerts(settings)
    typer.echo(f"{len(delivery.sent)} alerts sent.")
    for reason in delivery.failed.values():
        typer.echo(reason, err=True)
    if left := len(waiting_alerts(settings)):
        stop(f"{left} alerts wait.")
