"""Imported by the process that steps are forked from: they inherit how a step is stopped that is over a limit."""

from contextlib import suppress

from ml_platform.cost.step_stop import install
from ml_platform.project import ProjectNotFound
from ml_platform.settings import Settings

with suppress(ProjectNotFound):  # outside a project there are no steps, and nothing to hold them to
    install(Settings().cost_dir)
