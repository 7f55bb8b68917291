"""The app as `python -m serving` runs it: wrapped by traces and a request log when they are asked for."""

import gc
import os

from starlette.types import ASGIApp

from serving import app, logs, traces


def create_app() -> ASGIApp:
    """Make the app of one worker as the environment asks for it."""
    inner = app.create_app()
    gc.freeze()  # what exists by now lives as long as the worker: the collector need not walk it
    made: ASGIApp = inner
    if traces.wanted():
        made = traces.TracedApp(made)
    logged = os.environ.get(logs.SETTING, "none")
    if logged != "none":
        made = logs.RequestLog(made, logs.LOGGED[logged])
    inner.answers_at_once = made is inner
    return made
