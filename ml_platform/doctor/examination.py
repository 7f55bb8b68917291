"""All checks of a project, one after the other."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ml_platform.doctor import databases, home, installation, login, releases, running, streams, tables
from ml_platform.doctor.effective_settings import effective_settings, overridden
from ml_platform.doctor.findings import Finding, error, guarded, ok, warning
from ml_platform.doctor.stored_formats import stored_formats
from ml_platform.environments import current_environment
from ml_platform.formats import unreadable
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings

OF_STATE: tuple[tuple[str, Callable[[Settings], Iterable[Finding]]], ...] = (
    ("folders", home.folders),
    ("disk", home.disk),
    ("permissions", home.permissions),
    ("login", login.login),
    ("clock", home.clock),
    ("locks", home.locks),
    ("processes", running.leftovers),
    ("ports", running.listening),
    ("contracts", tables.contracts),
    ("tables", tables.tables),
    ("online store", databases.online_store),
    ("releases", releases.releases),
    ("logs", home.logs),
    ("streams", streams.streams),
    ("tracking", databases.tracking),
    ("Dagster", databases.dagster_home),
)


def examine() -> Iterator[Finding]:
    """Check the project of this process and its state; nothing is changed or made.

    Examples
    --------
    >>> next(examine()).check
    'project'
    """
    try:
        project = current_project()
    except ProjectNotFound as problem:
        yield error("project", str(problem), "change into the project's folder, or set ML_PLATFORM_PROJECT")
        return
    yield ok("project", f"{project.package} in {project.root}")
    settings: Settings | None = None
    try:
        effective_settings()
        settings = Settings()
    except (ValueError, RuntimeError) as problem:  # of pydantic, of environments.yaml, of a port
        yield error("settings", str(problem), "correct it; ml-platform settings shows all when it can be read")
    else:
        yield from _settings(settings)
    yield from guarded("Python", installation.python)
    for name, check in (("engine", installation.engine), ("lock", installation.lock)):
        yield from guarded(name, partial(check, project.root))
    yield from guarded("extras", partial(installation.extras, project, settings))
    if settings is None:
        return
    for name, of_state in OF_STATE:
        yield from guarded(name, partial(of_state, settings))
    yield from guarded("formats", partial(_formats, settings))


def _settings(settings: Settings) -> Iterator[Finding]:
    environment = current_environment()
    name = f"environment {environment.name}" if environment else "no environments.yaml"
    yield ok("settings", f"{name}, state in {settings.home}")
    for variable, line in overridden(environment).items() if environment else ():
        yield warning(
            "settings",
            f"{variable} wins over line {line} of environments.yaml",
            f"unset {variable}, if that is not meant: it may be from another environment",
        )


def _formats(settings: Settings) -> Iterator[Finding]:
    stored = stored_formats(settings)
    problems = unreadable(stored)
    for problem in problems:
        found, _, remedy = problem.partition("; ")
        yield error("formats", found, remedy)
    if not problems:
        yield ok("formats", "all that is stored can be read by this engine")
