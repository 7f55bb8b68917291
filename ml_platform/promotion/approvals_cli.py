"""`ml-platform approvals`: which versions wait for a person, and the person's answer."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    from ml_platform.registry.approvals import ApprovalRequest

app = typer.Typer(no_args_is_help=True, help="See which versions wait for an approval, and approve or reject them.")
Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(help="Version in the registry.")]
Comment = Annotated[str, typer.Option(help="What you looked at, and why; it goes into the ledger.")]


@app.command("list")
def list_requests(
    model: Annotated[str | None, typer.Argument(help="Only this one; all when left out.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also what was answered or has expired.")] = False,
) -> None:
    """List the versions that wait for an approval, with who asked, when, and until when they wait."""
    from ml_platform.registry.releases import ReleaseStore

    now = datetime.now(UTC)
    requests = [
        request
        for request in ReleaseStore(Settings().releases_dir).approvals.all(model)
        if every or request.state(now) == "waits"
    ]
    for request in requests:
        state = request.state(now)
        say(f"{request.model} version {request.version}: {state}, until {request.expires_at:%Y-%m-%d %H:%M} UTC")
        for event in request.events:
            say(f"  {event.at:%Y-%m-%d %H:%M}  {event.action} by {event.by}: {event.comment}")
        say(f"  its card: ml-platform models card {request.model} {request.version}")
    if not requests:
        say("No version waits for an approval.")


@app.command()
def request(
    model: Model,
    version: Version,
    reason: Annotated[str, typer.Option(help="Why it is to serve; it goes into the ledger.")],
) -> None:
    """Ask that a version may serve, also again after a rejection or when the request has expired."""
    from ml_platform.promotion.approve import request_approval
    from ml_platform.registry.releases import ReleaseStore

    settings = Settings()
    try:
        known = ReleaseStore(settings.releases_dir).versions(model)
        if version not in known:
            raise LookupError(f"no version {version} is registered; there are {sorted(known) or 'none'}")
        done = request_approval(
            settings, model, version, known[version], by=promoter(settings), comment=reason, renew=True
        )
    except (LookupError, ValueError, MayNotPromote, EnvironmentUnknown) as error:
        _stop(model, version, error)
    say(f"{model} version {version} waits for an approval until {done.expires_at:%Y-%m-%d %H:%M} UTC")


@app.command()
def approve(model: Model, version: Version, comment: Comment) -> None:
    """Approve a version that waits, and release it. Serving follows within a second.

    Example: ml-platform approvals approve my_model 4 --comment "card read, slices fine"
    """
    from ml_platform.promotion.promote import RegistryBehind, promote_version
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseConflict

    settings = Settings()
    done = _answer(settings, model, version, approve=True, comment=comment)
    say(f"{model} version {version} is approved by {done.events[-1].by}")
    try:
        endpoint = promote_version(settings, model, version, by=done.events[-1].by, reason=f"approved: {comment}")
    except (LookupError, ValueError, BundleRefused, ReleaseConflict) as error:
        stop(f"it is not released: {error}. Repeat the command, or: ml-platform promote {model} {version} --reason …")
    except RegistryBehind as error:
        stop(str(error))
    say(f"{model} now serves version {version} (revision {endpoint.revision})")


@app.command()
def reject(model: Model, version: Version, comment: Comment) -> None:
    """Reject a version that waits; it stays registered, and may be asked for again."""
    done = _answer(Settings(), model, version, approve=False, comment=comment)
    say(f"{model} version {version} is rejected by {done.events[-1].by}")


def _answer(settings: Settings, model: str, version: int, *, approve: bool, comment: str) -> "ApprovalRequest":
    from ml_platform.promotion.approve import answer_request

    try:
        return answer_request(settings, model, version, by=promoter(settings), approve=approve, comment=comment)
    except (LookupError, ValueError, MayNotPromote, EnvironmentUnknown) as error:
        _stop(model, version, error)


def _stop(model: str, version: int, error: Exception) -> NoReturn:
    name = f"{model} version {version}"
    stop(str(error) if str(error).startswith(name) else f"{name}: {error}")
