"""`ml-platform compose`: endpoints at which several models answer together are shown, published and retired."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop
from ml_platform.yaml_documents import SpecError

if TYPE_CHECKING:
    from ml_platform.registry.composition import Composition
    from ml_platform.registry.releases import ReleaseStore

app = typer.Typer(no_args_is_help=True, help="Endpoints at which several models answer together.")
Name = Annotated[str, typer.Argument(help="Name of the composed endpoint, as in its defs.yaml.")]


@app.command("list")
def list_() -> None:
    """Show every composed endpoint: its members, their versions, and what keeps it from answering."""
    from ml_platform.registry.composition import CompositionStore
    from ml_platform.registry.releases import ReleaseStore

    store = ReleaseStore(Settings().releases_dir)
    composed, unreadable = CompositionStore(store).readable()
    if not composed and not unreadable:
        say("No composed endpoint is published: declare one in defs/ and `ml-platform compose publish <name>`.")
    for document in composed.values():
        for line in composed_lines(store, document):
            say(line)
    for name, reason in unreadable.items():
        say(f"{name}: {reason}")


@app.command()
def publish(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; it goes into the document.")],
    revision: Annotated[int | None, typer.Option(help="Refuse unless this revision is current (0: none yet).")] = None,
) -> None:
    """Let a composed endpoint answer as its defs.yaml declares. Serving follows within a second.

    Example: ml-platform compose publish late_by_segment --reason "one model for the islands"
    """
    from ml_platform.inference.composition.publish import publish_composition
    from ml_platform.project import current_project
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.releases import ReleaseConflict, ReleaseStore
    from ml_platform.spec_yaml import composed_endpoints
    from ml_platform.yaml_documents import unknown

    try:
        declared = composed_endpoints(current_project().defs)
        if name not in declared:
            raise LookupError(unknown(name, declared, what="composed endpoint"))
        settings = Settings()
        document = publish_composition(
            ReleaseStore(settings.releases_dir),
            declared[name],
            by=promoter(settings, name),
            reason=reason,
            expected_revision=revision,
        )
    except (LookupError, ValueError, SpecError, ReleaseConflict, BundleRefused, MayNotPromote) as error:
        stop(f"{name} was not published: {error}")
    say(f"{name} answers by {describe(document)} (revision {document.revision})")


@app.command()
def retire(name: Name, reason: Annotated[str, typer.Option(help="Why; it goes into the document.")]) -> None:
    """Take a composed endpoint out of service; its members go on. Requests to it are answered 410 then."""
    from ml_platform.registry.composition import CompositionStore
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.yaml_documents import unknown

    try:
        settings = Settings()
        store = CompositionStore(ReleaseStore(settings.releases_dir))
        composed, unreadable = store.readable()
        document = next(store.history(name), None) if name in unreadable else composed.get(name)
        if document is None:
            raise LookupError(unknown(name, composed, what="composed endpoint"))
        by = promoter(settings, name)
        store.publish(
            name, None, description=document.description, owner=document.owner, reason=reason, by=by
        )  # fmt: skip
    except (LookupError, ValueError, MayNotPromote) as error:
        stop(f"{name} was not retired: {error}")
    say(f"{name} is out of service; `ml-platform compose publish {name}` brings it back")


def composed_lines(store: "ReleaseStore", document: "Composition") -> Iterator[str]:
    """Yield what a composed endpoint is, by which versions its members answer, and what keeps them from it."""
    from ml_platform.inference.composition.publish import check_composition
    from ml_platform.inference.composition.signature import CompositionRefused
    from ml_platform.registry.composition import CompositionStore
    from ml_platform.registry.digests import BundleRefused
    from ml_platform.registry.manifest import describe_targets

    yield f"{document.name}: {describe(document)}; revision {document.revision}"
    yield f"  {document.updated_at} by {document.updated_by}: {document.reason}"
    endpoints, composed = store.readable_documents()[0], CompositionStore(store).all()
    for name in document.members:
        if name in composed:
            yield f"  {name}: composed itself, revision {composed[name].revision}"
        elif name in endpoints and endpoints[name].targets:
            yield f"  {name}: {describe_targets(endpoints[name].targets)}"
        else:
            yield f"  {name}: nothing serves"
    try:
        check_composition(store, document)
    except (CompositionRefused, BundleRefused, LookupError, ValueError) as error:
        yield f"  does not fit what is released now: {error}"


def describe(document: "Composition") -> str:
    """What answers, in words."""
    from ml_platform.registry.composition import Ensemble, Pipeline, Route

    of = document.of
    if isinstance(of, Ensemble):
        return "the mean of " + ", ".join(f"{name} ({share:.3g})" for name, share in of.members.items())
    if isinstance(of, Pipeline):
        return " → ".join(step.model for step in of.steps)
    assert isinstance(of, Route)
    segments = [f"{of.by} {value!r}: {name}" for value, name in of.values]
    segments += [f"{rule.when}: {rule.model}" for rule in of.rules]
    return f"{'; '.join(segments)}; else {of.default}"
