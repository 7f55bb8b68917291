"""`ml-platform approvals`: which versions wait for a person, and the person's answer."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ml_platform.environments import EnvironmentUnknown
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    from ml_platform.registry.approved_release import Answered

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
    from ml_platform.registry.stored_documents import DocumentUnreadable

    now = datetime.now(UTC)
    try:
        requests = [
            request
            for request in ReleaseStore(Settings().releases_dir).approvals.all(model)
            if every or request.state(now) == "waits"
        ]
    except DocumentUnreadable as error:
        stop(str(error))
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
        store = ReleaseStore(settings.releases_dir)
        known, serving = store.versions(model), store.endpoint(model)
        if version not in known:
            raise LookupError(f"no version {version} is registered; there are {sorted(known) or 'none'}")
        if serving is not None and known[version] in {target.digest for target in serving.targets}:
            raise ValueError(f"it serves already (revision {serving.revision}), and needs no approval")
        done = request_approval(
            settings, model, version, known[version], by=promoter(settings, model), comment=reason, renew=True
        )
    except (LookupError, ValueError, MayNotPromote, EnvironmentUnknown) as error:
        _stop(model, version, error)
    say(f"{model} version {version} waits for an approval until {done.expires_at:%Y-%m-%d %H:%M} UTC")


@app.command()
def approve(model: Model, version: Version, comment: Comment) -> None:
    """Approve a version that waits, and release it. Serving follows within a second.

    Example: ml-platform approvals approve my_model 4 --comment "card read, slices fine"
    """
    from ml_platform.registry.manifest import describe_targets

    done = _answer(Settings(), model, version, approve=True, comment=comment)
    say(f"{model} version {version} is approved by {done.request.events[-1].by}")
    if done.endpoint is None:
        stop(f"it is not released: {done.not_released}")
    say(f"{model} serves {describe_targets(done.endpoint.targets)}, revision {done.endpoint.revision}")


@app.command()
def reject(model: Model, version: Version, comment: Comment) -> None:
    """Reject a version that waits; it stays registered, and may be asked for again."""
    done = _answer(Settings(), model, version, approve=False, comment=comment)
    say(f"{model} version {version} is rejected by {done.request.events[-1].by}")


def _answer(settings: Settings, model: str, version: int, *, approve: bool, comment: str) -> "Answered":
    from ml_platform.promotion.answer import answer_request
    from ml_platform.promotion.promote import RegistryBehind
    from ml_platform.registry.digests import BundleRefused

    try:
        return answer_request(settings, model, version, by=promoter(settings, model), approve=approve, comment=comment)
    except (LookupError, ValueError, BundleRefused, MayNotPromote, EnvironmentUnknown) as error:
        _stop(model, version, error)
    except RegistryBehind as error:
        stop(str(error))


def _stop(model: str, version: int, error: Exception) -> NoReturn:
    name = f"{model} version {version}"
    stop(str(error) if str(error).startswith(name) else f"{name}: {error}")
