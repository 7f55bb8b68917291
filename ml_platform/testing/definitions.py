"""Loads the project's definitions as Dagster does, and reports what is wrong with them as the engine reports it."""

from typing import Any

from ml_platform.project import current_project


def check_definitions_load() -> None:
    """Check that everything the project declares loads, and that its assets, jobs, schedules and sensors fit together.

    It is what Dagster's code server does when it starts: YAML, SQL and Python files are read and checked against one
    another, nothing is computed.

    Raises
    ------
    AssertionError
        With the engine's own report: of YAML files all mistakes, with file, line and key.
    """
    from ml_platform.orchestration.loaded_definitions import check_loadable, load_definitions

    project = current_project()
    try:
        check_loadable(load_definitions(project))
    except Exception as error:
        raise AssertionError(
            f"wanted the definitions of {project.definitions} to load; found {type(error).__name__}:\n{error}\n"
            "Correct them; `dg check defs` says the same"
        ) from error


def current_graph() -> dict[str, Any]:
    """Describe the graph of the current project (raises what `check_definitions_load` raises)."""
    from ml_platform.orchestration.loaded_definitions import describe_graph, load_definitions

    check_definitions_load()
    return describe_graph(load_definitions(current_project()))
