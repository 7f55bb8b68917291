"""`ml-platform environments`: which there are, and a model promoted from one to the next."""

from typing import Annotated

import typer

from ml_platform.environments import current_environment, environment_named, environments
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

app = typer.Typer(no_args_is_help=True, help="List the project's environments, and promote a model to the next.")


@app.command("list")
def list_environments() -> None:
    """List the environments of environments.yaml; a star marks the one that this terminal works in."""
    current = current_environment()
    if current is None:
        say("There is one environment: the project has no environments.yaml.")
        return
    for name, environment in environments().items():
        try:
            settings = Settings() if name == current.name else Settings.of(environment)
        except ValueError as error:  # as of a variable that is set elsewhere only
            say(f"{'*' if name == current.name else ' '} {name}: {error}")
            continue
        promoters = ", ".join(settings.promoters) or "anybody who may write there"
        say(f"{'*' if name == current.name else ' '} {name}: {settings.home}; promoters: {promoters}")


@app.command()
def promote(  # noqa: PLR0917 - typer takes options as arguments
    reference: Annotated[str, typer.Argument(help="Model and version: my_model@champion, @challenger or @4.")],
    to: Annotated[str, typer.Option(help="Environment that gets it, of environments.yaml.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger and the endpoint document there.")],
    overrule_gate: Annotated[bool, typer.Option("--overrule-gate", help="Take what the gate refused.")] = False,
    contract_changes: Annotated[
        bool, typer.Option("--contract-changes", help="Take other inputs or answers than those of what serves there.")
    ] = False,
    register_only: Annotated[
        bool, typer.Option("--register-only", help="Register it there, without letting it serve.")
    ] = False,
) -> None:
    """Promote a model from this environment to another: verified, copied, registered, released. Repeating is harmless.

    Example: ml-platform environments promote my_model@champion --to staging --reason "release 12"
    """
    from ml_platform.promotion.across_environments import promote_across
    from ml_platform.promotion.candidate import NotPromotable
    from ml_platform.promotion.promote import RegistryBehind
    from ml_platform.promotion.promoters import MayNotPromote, promoter
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseConflict, ReleaseStore

    try:
        current, settings = current_environment(), Settings()
        if current is not None and settings.home != (described := Settings.of(current).home):
            raise NotPromotable(
                f"this terminal works on {settings.home}, and {current.path.name} has {described} for {current.name}: "
                "unset ML_PLATFORM_HOME, which `ml-platform env` has set for another environment"
            )
        target = Settings.of(environment_named(to))
        version, endpoint = promote_across(
            settings,
            target,
            reference,
            source_name=current.name if current else "",
            by=promoter(target, reference.partition("@")[0]),
            reason=reason,
            overrule_gate=overrule_gate,
            contract_changes=contract_changes,
            release=not register_only,
        )
    except (LookupError, ValueError, NotPromotable, BundleRefused, ReleaseConflict, MayNotPromote) as error:
        stop(f"{reference} was not promoted to {to}: {error}")
    except RegistryBehind as error:
        stop(str(error))
    model = reference.partition("@")[0]
    if endpoint is None:
        needs_approval = not register_only and ReleaseStore(target.releases_dir).approvals.policy(model) is not None
        serve = (
            f"approvals approve {model} {version} --comment"
            if needs_approval
            else f"promote {model} {version} --reason"
        )
        say(f"{model}: version {version} of {to}, which waits; to serve it, with ML_PLATFORM_ENVIRONMENT={to}:")
        say(f'  ml-platform {serve} "…"')
    else:
        say(f"{model}: version {version} of {to}, which serves there (revision {endpoint.revision})")
