"""`ml-platform canary`: begin, watch, drive and end the walk of a release through shares of the traffic."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import fault_of, say, stop

if TYPE_CHECKING:
    from ml_platform.registry.manifest import CanaryPolicy, Endpoint
    from ml_platform.registry.releases import ReleaseStore

app = typer.Typer(no_args_is_help=True, help="Let a version walk through shares of the traffic, guarded at each step.")
Name = Annotated[str, typer.Argument(help="The model, or an endpoint with a name of its own.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger and the endpoint document.")]


@app.command()
def start(  # noqa: PLR0917 - typer takes options as arguments
    name: Name,
    version: Annotated[int, typer.Argument(help="Version in the registry.")],
    reason: Reason,
    steps: Annotated[
        str | None, typer.Option(help="Percents such as 5,25,100; those of defs.yaml, else these, when left out.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="That a step lasts at least.")] = None,
    min_requests: Annotated[int | None, typer.Option(help="Of each side, before a step is passed.")] = None,
) -> None:
    """Give a version the first step's share of the traffic. Dagster's sensor, or `canary run`, drives it on.

    Example: ml-platform canary start my_model 4 --steps 5,25,100 --minutes 30 --reason "new features"
    """
    from ml_platform.promotion.canary import begin_walk
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.version_inputs import unlike_live_inputs

    try:
        settings = Settings()
        store = ReleaseStore(settings.releases_dir)
        policy = _policy(store, name, steps, minutes, min_requests)
        endpoint = begin_walk(settings, name, version, policy=policy, by=promoter(settings, name), reason=reason)
    except _errors() as error:
        stop(f"version {version} does not walk: {fault_of(name, error)}")
    _tell(endpoint)
    for line in unlike_live_inputs(store, endpoint):
        say(f"  {line}")
    say(f"  without Dagster's daemon, drive it: ml-platform canary run {name}")


@app.command()
def status(name: Annotated[str | None, typer.Argument(help="Only this one; all when left out.")] = None) -> None:
    """Show how far walks are, and what their guards last found, beside their bounds."""
    from ml_platform.registry.releases import ReleaseStore

    store = ReleaseStore(Settings().releases_dir)
    readable, unreadable = store.readable_documents()
    for one, error in unreadable.items():
        if name in (None, one):
            say(f"{one}: {error}", err=True)
    documents = {one: document for one, document in readable.items() if name in (None, one)}
    if name is not None and name not in {*documents, *unreadable}:
        stop(f"'{name}' was never released. Known: {', '.join(readable) or 'none'}")
    if name in unreadable:
        raise typer.Exit(1)
    shown = [document for document in documents.values() if document.canary is not None]
    for document in shown:
        _show(store, document)
    if not shown:
        say(f"{name}: no canary walk is under way." if name else "No canary walk is under way.")


@app.command()
def run(
    name: Name,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, take the step that is due, and end.")] = False,
) -> None:
    """Drive a walk to its end, as Dagster's sensor does; ends with 1 when it was rolled back or ended by somebody.

    It may be stopped, killed and repeated at any time: the walk goes on from where the endpoint is.
    """
    from ml_platform.monitoring.canary.advance import advance
    from ml_platform.promotion.promote import RegistryBehind
    from ml_platform.registry.releases import ReleaseStore

    said, walked = "", False
    while True:
        try:
            progress = advance(Settings(), name)
        except RegistryBehind as error:
            say(str(error))
            if once:
                raise typer.Exit(1) from error
            time.sleep(every)
            continue
        except _errors() as error:
            stop(fault_of(name, error))
        endpoint, report = progress.endpoint, progress.report
        walked = walked or report is not None
        if report is not None and report.said != said:
            said = report.said
            say(f"{report.at:%H:%M:%S}  {said}")
        if progress.changed or endpoint.walk is None:
            _tell(endpoint)
        if endpoint.walk is None or once:
            break
        time.sleep(every)
    if endpoint.canary is None:
        stop(f"{name}: no canary walk is under way")
    if endpoint.canary.state not in {"walking", "completed"}:
        _show(ReleaseStore(Settings().releases_dir), endpoint)
        raise typer.Exit(1)


@app.command()
def abort(name: Name, reason: Reason) -> None:
    """End a walk: what served before it serves all traffic again."""
    from ml_platform.promotion.canary import abort_walk

    try:
        settings = Settings()
        endpoint = abort_walk(settings, name, by=promoter(settings, name), reason=reason)
    except _errors() as error:
        stop(fault_of(name, error))
    _tell(endpoint)


@app.command()
def resume(name: Name, reason: Reason) -> None:
    """Take a walk that was rolled back or ended up again, at its step, with its guards."""
    from ml_platform.promotion.canary import take_up_walk

    try:
        settings = Settings()
        endpoint = take_up_walk(settings, name, by=promoter(settings, name), reason=reason)
    except _errors() as error:
        stop(fault_of(name, error))
    _tell(endpoint)


def _errors() -> tuple[type[Exception], ...]:
    from ml_platform.promotion.promote import RegistryBehind
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseConflict

    return (
        LookupError, ValueError, ReleaseConflict, BundleRefused, RegistryBehind, MayNotPromote, EnvironmentUnknown
    )  # fmt: skip


def _policy(
    store: "ReleaseStore", name: str, steps: str | None, minutes: float | None, min_requests: int | None
) -> "CanaryPolicy":
    import msgspec

    from ml_platform.registry.canary import canary_policy, check_policy
    from ml_platform.registry.manifest import CanaryPolicy

    document = store.document(name)
    policy = canary_policy(store, document.model if document else name) or CanaryPolicy()
    if steps is not None:
        try:
            policy = msgspec.structs.replace(policy, steps=tuple(float(step.strip(" %")) for step in steps.split(",")))
        except ValueError as error:
            raise ValueError(f"--steps: wanted percents such as 5,25,100, found '{steps}'") from error
    if minutes is not None:
        policy = msgspec.structs.replace(policy, minutes=minutes)
    if min_requests is not None:
        policy = msgspec.structs.replace(policy, min_requests=min_requests)
    return check_policy(policy)


def _tell(endpoint: "Endpoint") -> None:
    from ml_platform.registry.manifest import describe_targets

    say(f"{endpoint.name}: {describe_targets(endpoint.targets)}; revision {endpoint.revision} by {endpoint.updated_by}")
    say(f"  {endpoint.reason}")


def _show(store: "ReleaseStore", document: "Endpoint") -> None:
    from ml_platform.monitoring.status_text import canary_lines

    say(f"{document.name}:")
    for line in canary_lines(store, document):
        say(f"  {line}")
