"""Imported by the process that steps are forked from: they inherit how a step is stopped that is over a limit."""

from ml_platform.cost.step_stop import install
from ml_platform.settings import Settings

install(Settings().cost_dir)
