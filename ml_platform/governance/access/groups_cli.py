"""`ml-platform groups …`: groups of people, services and other groups."""

from typing import Annotated

import typer

from ml_platform.governance.access.changes import PLATFORM_OBJECT, with_group, without_group
from ml_platform.governance.access.cli import stopping
from ml_platform.governance.access.commands import AccessEditor
from ml_platform.settings import Settings
from ml_platform.terminal import say

app = typer.Typer(
    no_args_is_help=True, help="Make groups of people, services and groups, to which privileges are granted."
)
Group = Annotated[str, typer.Argument(help="Name of the group, without `group:`.")]
Members = Annotated[list[str], typer.Argument(help="user:<name>, service:<key name>, group:<name>.")]


@app.command("list")
def list_groups() -> None:
    """List groups with their members."""

    def action() -> None:
        groups = AccessEditor(Settings()).policy.directory.groups
        for name, members in sorted(groups.items()):
            say(f"{name}: {', '.join(members) or 'no members'}")
        if not groups:
            say("There are no groups; ml-platform groups add analysts user:ada makes one.")

    stopping(action)


@app.command()
def add(name: Group, members: Members) -> None:
    """Make a group, or add members to one.

    Example: ml-platform groups add analysts user:ada@example.com service:dashboards group:interns
    """

    def action() -> None:
        editor, words = AccessEditor(Settings()), f"group {name}: add {', '.join(members)}"
        editor.change(lambda document: with_group(document, name, add=members), PLATFORM_OBJECT, words)
        say(words)

    stopping(action)


@app.command()
def remove(name: Group, members: Members) -> None:
    """Take members out of a group."""

    def action() -> None:
        editor, words = AccessEditor(Settings()), f"group {name}: remove {', '.join(members)}"
        editor.change(lambda document: with_group(document, name, remove=members), PLATFORM_OBJECT, words)
        say(words)

    stopping(action)


@app.command()
def delete(name: Group) -> None:
    """Delete a group that no grant, owner or group names any more."""

    def action() -> None:
        editor = AccessEditor(Settings())
        editor.change(lambda document: without_group(document, name), PLATFORM_OBJECT, f"group {name}: deleted")
        say(f"group {name}: deleted")

    stopping(action)
