"""`make dev`: the platform's processes on what is there, until Ctrl-C."""

import argparse
import sys
from collections.abc import Mapping, Sequence

from ml_platform.login.people import prepare as prepare_login
from ml_platform.login.settings import LoginSettings
from ml_platform.monitoring.alerts.alert import Alert, record_alert
from ml_platform.private_files import make_private
from ml_platform.processes.output import TERMINAL
from ml_platform.processes.platform import (
    PORTS,
    addresses,
    dagster_home,
    make_databases,
    missing_settings,
    platform_environment,
    platform_processes,
    port_variable,
    ports,
)
from ml_platform.processes.runner import CannotStart, Process, end_leftovers, run, say
from ml_platform.project import current_project
from ml_platform.settings import Settings
from ml_platform.spec_yaml import declared_streams
from ml_platform.yaml_documents import SpecError

STREAMS = "streams"  # a worker for each model that declares one


def prepare(settings: Settings, processes: Sequence[Process]) -> None:
    """Make the home private and ready, end what a killed run left on it, and say what its `dagster.yaml` lacks.

    Raises
    ------
    CannotStart
        When another run has one of the processes on the same home, or Dagster's databases cannot be made.
    """
    if changed := make_private(settings.home):
        say(f"{changed} files and folders in {settings.home} could be read by others; they are private now")
    end_leftovers(processes, settings.home)
    if any(process.name == "dagster-daemon" for process in processes):
        make_databases(settings)
    if missing := missing_settings(dagster_home(settings)):
        say(missing)


def feature_streams(settings: Settings, chosen: Mapping[str, int]) -> list[Process]:
    """Give a process for each table whose rolling views follow a stream of events."""
    from ml_platform.features.streaming.cli import project_streams

    project = current_project()
    try:
        tables = project_streams()
    except (ValueError, OSError) as error:  # Dagster's own pages say so too; the rest of the platform can run
        say(f"no stream of features is followed: {error}")
        return []
    return [
        Process(
            f"features-{views[0].name}",
            [sys.executable, "-m", "ml_platform", "stream", "features", views[0].name],
            environment=platform_environment(settings, chosen),
            cwd=project.root,
        )
        for _, views in sorted(tables.items())
    ]


def stream_processes(settings: Settings, chosen: Mapping[str, int]) -> list[Process]:
    """Return a worker for each model of the project that declares `stream:`.

    Raises
    ------
    CannotStart
        When the YAML of a model has mistakes.
    """
    project, environment = current_project(), platform_environment(settings, chosen)
    try:
        models = list(declared_streams(project.defs))
    except SpecError as error:
        raise CannotStart(str(error)) from error
    return [
        Process(
            f"stream-{model}",
            [sys.executable, "-m", "ml_platform", "stream", "run", model],
            environment=environment,
            cwd=project.root,
        )
        for model in models
    ]


def alert_given_up(process: Process, reason: str) -> None:
    """Tell whoever gets the alerts that a process is no longer started again."""
    record_alert(
        Settings(),
        Alert(
            model="platform",
            kind="process",
            severity="error",
            title=f"{process.name} is down and is not started again",
            body=f"{reason}. The other processes go on. Stop the platform and start it anew once the cause is mended.",
        ),
    )


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ml_platform.dev", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"which to run; all of {', '.join([*PORTS, STREAMS])} when none"
    )
    for name, usual in PORTS.items():
        parser.add_argument(f"--{name}-port", type=int, help=f"instead of {port_variable(name)} (usually {usual})")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the platform until Ctrl-C; return the exit code."""
    parser = argument_parser()
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - {*PORTS, STREAMS}):
        parser.error(f"no process is called {', '.join(unknown)}: choose from {', '.join([*PORTS, STREAMS])}")
    try:
        chosen = ports()
        chosen |= {name: port for name in PORTS if (port := getattr(options, f"{name}_port")) is not None}
        settings = Settings()
        make_private(settings.home)
        if prepare_login(settings, LoginSettings()) is None and "login" in options.names:
            raise CannotStart("nobody could sign in: make an account first, with ml-platform accounts add <name>")
        processes = platform_processes(settings, chosen, options.names or tuple(PORTS))
        if not options.names or "serving" in options.names:
            processes += feature_streams(settings, chosen)
        if not options.names or STREAMS in options.names:
            processes += stream_processes(settings, chosen)
        prepare(settings, processes)
        return run(
            processes,
            on_ready=lambda: TERMINAL.write(f"\n{addresses(processes)}\n\nCtrl-C stops all of them.\n"),
            on_given_up=alert_given_up,
        )
    except (CannotStart, ValueError, OSError) as error:  # as of a full disk
        print(f"platform: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
