"""The app as `python -m serving` runs it: with traces and a log of requests around it, where they are asked for."""

import gc
import os

from starlette.types import ASGIApp

from serving import app, logs, traces


def create_app() -> ASGIApp:
    """Make the app of one worker as the environment asks for it; what is not asked for costs a request nothing."""
    inner = app.create_app()
    gc.freeze()  # what is imported by now stays: the collector walks it no more
    made: ASGIApp = inner
    if traces.wanted():
        made = traces.TracedApp(made)
    logged = os.environ.get(logs.SETTING, "none")
    if logged != "none":
        made = logs.RequestLog(made, logs.LOGGED[logged])
    inner.answers_at_once = made is inner
    return made
