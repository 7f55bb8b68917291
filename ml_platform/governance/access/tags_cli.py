"""`ml-platform tags …`: tags of tables and columns, and how columns of a tag look to who may not select on it."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ml_platform.governance.access.changes import PLATFORM_OBJECT, with_masked_tag, with_tag
from ml_platform.governance.access.cli import stopping
from ml_platform.governance.access.commands import AccessEditor
from ml_platform.governance.access.definitions import load_definitions
from ml_platform.governance.access.objects import parse_object
from ml_platform.governance.access.policy import TagChange
from ml_platform.governance.access.speaker import project_graph
from ml_platform.governance.access.tag_flow import column_tags
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

app = typer.Typer(
    no_args_is_help=True, help="Tag tables and columns; columns of a masked tag are hidden unless granted."
)
Object = Annotated[str, typer.Argument(help="Table or column: raw.flights, raw.flights.tail_number.")]
TagName = Annotated[str, typer.Argument(help="Tag, such as pii.")]


@app.command("set")
def set_tag(name: Object, tag: TagName, reason: Annotated[str, typer.Option(help="Why.")] = "") -> None:
    """Tag a column, or a table and so all its columns.

    Example: ml-platform tags set raw.flights.tail_number pii
    """
    _change(name, tag, reason, removed=False)


@app.command()
def remove(
    name: Object,
    tag: TagName,
    reason: Annotated[str, typer.Option(help="Why it does not hold any more; kept with the change.")],
) -> None:
    """Remove a tag, also one that definitions declare or that came with the column's source.

    Example: ml-platform tags remove features.carrier_reliability.flights pii --reason "counts of 100 flights and more"
    """
    _change(name, tag, reason, removed=True)


@app.command("list")
def list_tags() -> None:
    """List tagged columns, also by what they are derived from; and what commands changed, by whom and why."""

    def action() -> None:
        editor = AccessEditor(Settings())
        policy = editor.policy
        me = policy.directory.principal(editor.who.text, is_admin=editor.who.is_admin)
        is_open = policy.document.started is None
        for tag, how in sorted(policy.document.masked_tags.items()):
            say(f"tag:{tag} is masked ({how}) for all without select on it")
        for table, columns in sorted(column_tags(policy, load_definitions().protections, project_graph()).items()):
            if is_open or policy.allows(me, "browse", parse_object(table)):
                for column, tags in sorted(columns.items()):
                    if tags:
                        say(f"{table}.{column}: {', '.join(sorted(tags))}")
        for one in policy.document.tags:
            if is_open or policy.allows(me, "browse", parse_object(one.object)):  # by a command: who, and why
                verb = "without" if one.removed else "with"
                say(f"{one.object}: {verb} {one.tag}, by {one.by}{f': {one.reason}' if one.reason else ''}")

    stopping(action)


@app.command()
def mask(
    tag: TagName,
    how: Annotated[str, typer.Option(help="null, or hash: SHA-256 of texts, null of other types.")] = "null",
    off: Annotated[bool, typer.Option("--off", help="Mask columns of this tag no longer.")] = False,
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")] = "",
) -> None:
    """Mask columns of a tag for all who are not granted select on it: `pii` is from the start.

    Example: ml-platform tags mask confidential --how hash
    """

    def action() -> None:
        if off and not reason.strip():
            stop("a mask is taken off with a reason: --reason …")
        words = f"tag {tag}: {'masked no longer' if off else f'masked ({how})'}"
        editor = AccessEditor(Settings())
        editor.change(
            lambda document: with_masked_tag(document, tag, None if off else how), PLATFORM_OBJECT, words, reason
        )
        say(words)

    stopping(action)


def _change(name: str, tag: str, reason: str, *, removed: bool) -> None:
    def action() -> None:
        editor, wanted = AccessEditor(Settings()), parse_object(name)
        editor.check_object(wanted)
        change = TagChange(
            object=wanted.text, tag=tag, removed=removed, by=editor.who.text, at=datetime.now(UTC), reason=reason
        )
        words = f"{wanted.text}: {'without' if removed else 'with'} {tag}"
        editor.change(lambda document: with_tag(document, change), wanted, words, reason)
        say(words)

    stopping(action)
