"""Waits for the code servers of a workspace file, so that webserver and daemon do not start with an error to show."""

import time

from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths

WAIT_SECONDS = 120.0


def await_code_servers(workspace: str, seconds: float = WAIT_SECONDS) -> list[str]:
    """Wait until every code server of the file answers; return the names of those that did not in time.

    Both webserver and daemon go on without: they show the error and try again by themselves.
    """

    def is_silent(origin: GrpcServerCodeLocationOrigin) -> bool:
        try:
            origin.create_client().ping("")
        except DagsterUserCodeUnreachableError:
            return True
        return False

    until = time.monotonic() + seconds
    silent = [
        origin
        for origin in location_origins_from_yaml_paths([workspace])
        if isinstance(origin, GrpcServerCodeLocationOrigin)
    ]
    while True:
        silent = [origin for origin in silent if is_silent(origin)]
        if not silent or time.monotonic() > until:
            return [origin.location_name for origin in silent]
        time.sleep(0.2)
