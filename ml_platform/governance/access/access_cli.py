"""`ml-platform access …`: who may what, and why; owners, namespaces; the policy as a file."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from ml_platform.governance.access.changes import PLATFORM_OBJECT, with_namespace, with_owner
from ml_platform.governance.access.cli import Reason, stopping
from ml_platform.governance.access.commands import AccessEditor
from ml_platform.governance.access.objects import CatalogueObject, parse_object
from ml_platform.governance.access.policy import PRIVILEGES, Document, check_privilege
from ml_platform.governance.access.principals import Principal, parse_principal
from ml_platform.governance.access.speaker import check_allowed
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

app = typer.Typer(
    no_args_is_help=True, help="Show who may what, and why; give owners, make namespaces, apply access.yaml."
)
Object = Annotated[str, typer.Argument(help="Catalogue object: raw.flights, model:my_model, tag:pii, platform …")]
Who = Annotated[str | None, typer.Option("--as", help="Principal to answer for, user:ada …; who asks by default.")]


@app.command("list")
def list_grants(
    principal: Annotated[str | None, typer.Option(help="Only what counts for this principal, with its groups.")] = None,
    on: Annotated[str | None, typer.Option(help="Only what bears on this object.")] = None,
) -> None:
    """List grants and denials; what has ended is marked."""

    def action() -> None:
        editor = AccessEditor(Settings())
        policy, now = editor.policy, datetime.now(UTC)
        grants = list(policy.document.grants) if on is None else policy.grants_on(parse_object(on))
        mine = policy.directory.principal(editor.who.text, is_admin=editor.who.is_admin)
        who = _principal(editor, principal) if principal is not None else None
        if not policy.allows(mine, "manage", PLATFORM_OBJECT):
            grants = [one for one in grants if policy.allows(mine, "browse", parse_object(one.object))]
        shown = [one for one in grants if who is None or one.principal in who.identities]
        if policy.document.started is None:
            say("No access policy is in force: whatever keys and files allow is allowed.")
        for one in shown:
            ended = "" if one.is_active(now) else "  (has ended)"
            source = f", declared in {one.origin}" if one.origin else f", by {one.by}" if one.by else ""
            say(f"{one}{ended}{source}{f': {one.reason}' if one.reason else ''}")

    stopping(action)


@app.command()
def show(name: Object) -> None:
    """Show an object's owner, namespace and tags, and what is granted on it and around it."""

    def action() -> None:
        editor, wanted = AccessEditor(Settings()), parse_object(name)
        policy = editor.policy
        check_allowed(
            policy, policy.directory.principal(editor.who.text, is_admin=editor.who.is_admin), "browse", wanted
        )
        say(f"{wanted.text}, a {wanted.kind}; owner: {policy.owner_of(wanted) or 'none'}")
        say(f"  within: {' → '.join(policy.chain(wanted)[1:]) or 'nothing'}")
        tags = [f"{'−' if one.removed else '+'}{one.tag}" for one in policy.document.tags if one.object == wanted.text]
        if tags:
            say(f"  tags by command: {', '.join(tags)}")
        for one in policy.grants_on(wanted):
            say(f"  {one}")

    stopping(action)


@app.command()
def check(
    privilege: Annotated[str, typer.Argument(help=f"One of {', '.join(PRIVILEGES)}.")],
    name: Object,
    who: Who = None,
) -> None:
    """Say whether somebody has a privilege; exit code 1 when not.

    Example: ml-platform access check select raw.flights --as user:ada
    """

    def action() -> None:
        editor, wanted = AccessEditor(Settings()), parse_object(name)
        check_privilege(privilege, wanted)
        asked = _principal(editor, who)
        if editor.policy.document.started is None:
            say(f"yes: no access policy is in force, so {asked.text} may {privilege} {wanted.text}")
            return
        verdict = editor.policy.explain(asked, privilege, wanted)
        line = f"{asked.text}, {privilege} on {wanted.text}: {verdict.why}"
        if not verdict.allowed:
            stop(f"no: {line}")
        say(f"yes: {line}")

    stopping(action)


@app.command()
def explain(name: Object, who: Who = None) -> None:
    """Say for every privilege on an object whether somebody has it, and by what."""

    def action() -> None:
        editor, wanted = AccessEditor(Settings()), parse_object(name)
        asked = _principal(editor, who)
        for privilege in PRIVILEGES:
            try:
                check_privilege(privilege, wanted)
            except ValueError:
                continue
            verdict = editor.policy.explain(asked, privilege, wanted)
            say(f"{'yes' if verdict.allowed else 'no ':3}  {privilege:12} {verdict.why}")

    stopping(action)


@app.command()
def whoami() -> None:
    """Say who speaks here, by which groups, and whether a policy is in force."""

    def action() -> None:
        editor = AccessEditor(Settings())
        me = editor.policy.directory.principal(editor.who.text, is_admin=editor.who.is_admin)
        say(f"{me.text}{', an admin' if me.is_admin else ''}; groups: {', '.join(sorted(me.groups)) or 'none'}")
        started = editor.policy.document.started
        say(f"policy: {f'in force since {started:%Y-%m-%d %H:%M} UTC' if started else 'none in force'}")

    stopping(action)


@app.command()
def owner(
    name: Object,
    principal: Annotated[
        str | None, typer.Argument(help="The new owner; the one of the definitions without it.")
    ] = None,
    reason: Reason = "",
) -> None:
    """Give an object an owner, who may do everything on it and on what it contains.

    Example: ml-platform access owner raw.flights group:operations
    """

    def action() -> None:
        editor, wanted = AccessEditor(Settings()), parse_object(name)
        editor.check_object(wanted)
        new = None if principal is None else parse_principal(principal)
        words = f"owner of {wanted.text}: {new or 'as defined'}"
        editor.change(lambda document: with_owner(document, wanted.text, new), wanted, words, reason)
        say(words)

    stopping(action)


@app.command()
def namespace(
    name: Annotated[str, typer.Argument(help="Name of the namespace, such as a team's.")],
    members: Annotated[
        list[str] | None, typer.Argument(help="Schemas, tables and models in it: risk_raw, model:risk_* …")
    ] = None,
    *,
    owner: Annotated[str | None, typer.Option(help="Who owns all in it: group:risk.")] = None,
    dissolve: Annotated[bool, typer.Option(help="Dissolve it; its objects stay.")] = False,
    reason: Reason = "",
) -> None:
    """Make a namespace, a team's share of the platform, or say anew what is in it.

    Example: ml-platform access namespace risk risk_raw "model:risk_*" --owner group:risk
    """

    def action() -> None:
        if bool(members) == dissolve:
            stop("give what is in the namespace, or --dissolve")
        editor = AccessEditor(Settings())
        text = CatalogueObject("namespace", (name,)).text
        new = None if owner is None else parse_principal(owner)

        def change(document: Document) -> Document:
            document = with_namespace(document, name, None if dissolve else members)
            return with_owner(document, text, new) if new is not None or dissolve else document

        words = f"namespace {name}: {'dissolved' if dissolve else ', '.join(members or ())}"
        editor.change(change, PLATFORM_OBJECT, words, reason)
        say(words)

    stopping(action)


@app.command("apply")
def apply_file(
    path: Annotated[
        Path | None, typer.Argument(help="The file; access.yaml beside environments.yaml by default.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; exit code 1 if anything.")] = False,
) -> None:
    """Make the policy what a file declares; what commands granted stays beside it.

    Example: ml-platform access apply --dry-run
    """
    from ml_platform.governance.access.access_yaml import apply_declared, read_declared
    from ml_platform.project import current_project

    def action() -> None:
        file = path or current_project().root / "access.yaml"
        declared = read_declared(file)
        changes = apply_declared(AccessEditor(Settings()), declared, file.name, dry_run=dry_run)
        for line in changes:
            say(line)
        if not changes:
            say(f"The policy is what {file.name} declares.")
        elif dry_run:
            raise typer.Exit(1)

    stopping(action)


@app.command("stop")
def stop_policy(reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")]) -> None:
    """Take the policy out of force: everything is as keys and files allow. Grants stay, for the next start."""

    def action() -> None:
        editor = AccessEditor(Settings())
        editor.change(lambda document: replace(document, started=None), PLATFORM_OBJECT, "policy stopped", reason)
        say("No access policy is in force. The next grant or denial starts it again.")

    stopping(action)


def _principal(editor: AccessEditor, text: str | None) -> Principal:
    """The principal to answer for: who asks, or another one, with what keys of that name make of it."""
    directory = editor.policy.directory
    if text is None or text == editor.who.text:
        return directory.principal(editor.who.text, is_admin=editor.who.is_admin)
    me = directory.principal(editor.who.text, is_admin=editor.who.is_admin)
    if editor.policy.document.started is not None:
        check_allowed(editor.policy, me, "manage", PLATFORM_OBJECT)
    return editor.principal_named(parse_principal(text))
