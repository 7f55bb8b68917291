"""The project's app as `python -m ml_platform.serving` runs it: wrapped by traces and a request log when asked for."""

import gc
import os

from starlette.types import ASGIApp
from uvicorn.importer import ImportFromStringError, import_from_string

from ml_platform.serving.app import ServingApp
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry import logs, traces


class NotAnApp(RuntimeError):
    """What the setting `ML_PLATFORM_SERVING_APP` names is not an app of this server."""


def create_app() -> ASGIApp:
    """Make the app of one worker as the environment asks for it (raises NotAnApp)."""
    inner = project_app(ServingSettings().app)
    gc.freeze()  # what exists by now lives as long as the worker: the collector need not walk it
    made: ASGIApp = inner
    if traces.wanted():
        made = traces.TracedApp(made)
    logged = os.environ.get(logs.SETTING, "none")
    if logged != "none":
        made = logs.RequestLog(made, logs.LOGGED[logged])
    inner.answers_at_once = made is inner
    return made


def project_app(name: str) -> ServingApp:
    """Import the app that a project made with `ml_platform.serving.app.create_app`.

    Parameters
    ----------
    name
        `<module>:<attribute>`, as uvicorn takes it.

    Raises
    ------
    NotAnApp
        If there is no such module or attribute, or it is something else.
    """
    wanted = f"ML_PLATFORM_SERVING_APP: wanted <module>:<attribute> of an app made by `create_app`, found '{name}'"
    try:
        app = import_from_string(name)
    except ImportFromStringError as error:
        raise NotAnApp(f"{wanted}: {error}") from error
    if not isinstance(app, ServingApp):
        raise NotAnApp(f"{wanted}, which is of type {type(app).__name__}")
    return app
