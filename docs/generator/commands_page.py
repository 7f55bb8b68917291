"""The commands, their arguments and options, from the parsers that read them."""

import argparse
from collections.abc import Iterator

import click
import typer.main

from docs.generator.markdown import code, page, table
from ml_platform import cli, dev
from ml_platform.orchestration import daemon, webserver
from ml_platform.registry import ui
from ml_platform.serving import __main__ as serving

MODULES = {
    "python -m ml_platform.dev": dev.argument_parser,
    "python -m ml_platform.serving": serving.argument_parser,
    "python -m ml_platform.registry.ui": ui.argument_parser,
    "python -m ml_platform.orchestration.webserver": webserver.argument_parser,
    "python -m ml_platform.orchestration.daemon": daemon.argument_parser,
}


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield every command of `ml-platform` that does something, with its full name."""

    def below(name: str, command: click.Command, parent: click.Context | None) -> Iterator:
        context = click.Context(command, info_name=name.rsplit(maxsplit=1)[-1], parent=parent)
        if isinstance(command, click.Group):
            for word, inner in command.commands.items():
                yield from below(f"{name} {word}", inner, context)
        else:
            yield name, command, context

    yield from below("ml-platform", typer.main.get_command(cli.app), None)


def _parameter(parameter: click.Parameter) -> list[str]:
    names = (
        " ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        if isinstance(parameter, click.Option)
        else f"`{parameter.human_readable_name.upper()}`"
    )
    kind = parameter.type
    if isinstance(kind, click.Choice):
        value = " or ".join(f"`{choice}`" for choice in kind.choices)
    elif isinstance(parameter, click.Option) and parameter.is_flag:
        value = ""
    else:
        value = kind.name
    default = parameter.default
    given = "**required**" if parameter.required else code("" if default in (None, False, ()) else str(default))
    return [names, value, given, getattr(parameter, "help", None) or ""]


def _sections() -> Iterator[str]:
    for name, command, context in commands():
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        yield f"### {name}"
        yield (command.help or "").strip().replace("\n\nExample: ", "\n\nExample: `") + (
            "`" if "\n\nExample: " in (command.help or "") else ""
        )
        yield f"```sh\n{usage}\n```"
        parameters = [one for one in command.get_params(context) if "--help" not in one.opts]
        yield table(["parameter", "value", "default", "meaning"], map(_parameter, parameters))


def _module(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"### {name}"
    yield (parser.description or "").strip()
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        help_text = parser._get_formatter()._expand_help(action) if action.help else ""
        names = " ".join(f"`{one}`" for one in action.option_strings) or f"`{action.metavar or action.dest}`"
        values = " or ".join(f"`{choice}`" for choice in action.choices or ())
        rows.append([names, values or getattr(action.type, "__name__", "text"), help_text])
    yield table(["parameter", "value", "meaning"], rows)


def commands_page() -> str:
    """Return the page of all commands."""
    modules = [part for name, make in MODULES.items() for part in _module(name, make())]
    return page(
        "Commands",
        """`eval "$(.venv/bin/ml-platform env)"` puts these and Dagster's `dg` and `dagster` on a terminal's path.""",
        "## ml-platform",
        *_sections(),
        "## Processes",
        """`make dev` starts these; each can also be started alone. `python -m ml_platform.serving.ray_app [FILE]` runs
the server on Ray Serve by a configuration file, by default `deploy/ray_serve.yaml`.""",
        *modules,
        """## make

`make help` lists what the Makefile does: `setup`, `dev`, `test`, `check`, `docs` and others.""",
    )
