"""`ml-platform traffic`: which versions answer how much of an endpoint's traffic, shown and changed."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import fault_of, say, stop

if TYPE_CHECKING:
    from ml_platform.registry.releases import ReleaseStore

_SHARE = re.compile(r"(\d{1,9})=(\d+(?:\.\d+)?)(%?)")


def parse_shares(words: list[str]) -> dict[int, float]:
    """Read shares as people write them.

    Raises
    ------
    ValueError
        For what is no share, or a version that is there twice.

    Examples
    --------
    >>> parse_shares(["3=90%", "4=0.1"])
    {3: 0.9, 4: 0.1}
    """
    shares: dict[int, float] = {}
    for word in words:
        match = _SHARE.fullmatch(word)
        if match is None:
            raise ValueError(f"wanted shares such as 3=90% or 3=0.9, found '{word}'")
        if int(match[1]) in shares:
            raise ValueError(f"version {match[1]} is there twice")
        shares[int(match[1])] = float(match[2]) / (100 if match[3] else 1)
    return shares


def traffic(  # noqa: PLR0917 - typer takes options as arguments
    name: Annotated[str, typer.Argument(help="The model, or an endpoint with a name of its own.")],
    shares: Annotated[
        list[str] | None,
        typer.Argument(help="Each version's share: 3=90% 4=10%. Without any, the present shares are shown."),
    ] = None,
    shadow: Annotated[
        list[int] | None, typer.Option(help="Version that is scored and logged but never answers. May be repeated.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Input that decides between versions; the model's id by default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model whose versions a new endpoint with a name of its own serves.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger and the endpoint document.")] = "",
    revision: Annotated[
        int | None, typer.Option(help="Refuse unless this revision of the endpoint is current.")
    ] = None,
) -> None:
    """Show or change which versions answer, and their shares of the traffic. Serving follows within a second.

    Example: ml-platform traffic my_model 3=90% 4=10% --shadow 5 --reason "canary"
    """
    from ml_platform.promotion.promote import RegistryBehind, change_traffic
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseConflict, ReleaseStore
    from ml_platform.registry.traffic import TrafficChange

    try:
        if shares:
            change = TrafficChange(
                shares=parse_shares(shares),
                shadows=shadow or (),
                key=key,
                model=model,
                expected_revision=revision,
            )
            before = ReleaseStore(Settings().releases_dir).revision(name)
            settings = Settings()
            by = promoter(settings, name)
            if model is not None and model != name:
                promoter(settings, model)
            endpoint = change_traffic(settings, name, change, by=by, reason=reason)
            if endpoint.revision == before:
                say("nothing changed: this is what serves already")
        elif shadow or key or model:
            raise ValueError("wanted shares too, such as 3=100%: a change says who answers")
    except (LookupError, ValueError, ReleaseConflict, BundleRefused, RegistryBehind, MayNotPromote) as error:
        stop(f"traffic of {fault_of(name, error)}")
    _show(ReleaseStore(Settings().releases_dir), name)


def _show(store: "ReleaseStore", name: str) -> None:
    from ml_platform.registry.manifest import describe_targets
    from ml_platform.registry.version_inputs import unlike_live_inputs

    document = store.document(name)
    if document is None:
        stop(f"'{name}' was never released. Known: {', '.join(store.documents()) or 'none'}")
    say(f"{name}: {describe_targets(document.targets)}; revision {document.revision}")
    if len(document.targets) > 1:
        say(f"  decided by: {document.key or 'the id of the first row'}")
        for line in unlike_live_inputs(store, document):
            say(f"  {line}")
    say(f"  {document.updated_at} by {document.updated_by}: {document.reason}")
    others = sorted(set(store.versions(document.model)) - {target.version for target in document.targets})
    say(f"  may serve too: {', '.join(map(str, others)) or 'no other version'}")
