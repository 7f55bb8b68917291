"""JupyterLab on the project: on the loopback address, with a token, and silent towards the network."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from ml_platform.distribution import extra
from ml_platform.settings import Settings

EXTRA = "lab"


def lab_command(project: Path, settings: Settings, *, port: int, idle_minutes: float, browser: bool) -> list[str]:
    """Make the command line of JupyterLab.

    Parameters
    ----------
    project
        Root of the project: what can be opened.
    settings
        Where the layout of its windows is kept.
    port
        Port on 127.0.0.1; the next free one where it is taken.
    idle_minutes
        A kernel that nobody uses is ended after so long, and the server when nothing is left; 0 for never.
    browser
        Whether a browser is opened.

    Raises
    ------
    ExtraMissing
        When JupyterLab is not installed.
    """
    with extra(EXTRA):
        if find_spec("jupyterlab") is None:
            raise ModuleNotFoundError("No module named 'jupyterlab'", name="jupyterlab")
    folder = settings.home / "jupyter"
    options: dict[str, object] = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.root_dir": str(project),
        "ServerApp.open_browser": browser,
        "ServerApp.allow_root": hasattr(os, "geteuid") and os.geteuid() == 0,  # in a container there is no other user
        "LabApp.workspaces_dir": str(folder / "workspaces"),
        "LabApp.user_settings_dir": str(folder / "settings"),
        # Nothing is asked of other hosts: neither news nor newer versions.
        "LabApp.news_url": "None",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",
    }
    if idle_minutes:
        seconds = max(round(idle_minutes * 60), 1)
        options |= {
            "MappingKernelManager.cull_idle_timeout": seconds,
            "MappingKernelManager.cull_interval": max(min(seconds // 4, 300), 1),
            "MappingKernelManager.cull_connected": True,
            "ServerApp.shutdown_no_activity_timeout": seconds,
        }
    return [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]


def prepare_lab(settings: Settings) -> None:
    """Write settings that a first start lacks: no question about news."""
    folder = settings.home / "jupyter" / "settings" / "@jupyterlab" / "apputils-extension"
    path = folder / "notification.jupyterlab-settings"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}), encoding="utf-8")


def run_lab(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become JupyterLab: this process is replaced, so that signals and the exit code are its own."""
    os.execve(command[0], list(command), dict(environment))
