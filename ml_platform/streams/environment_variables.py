"""Credentials and addresses of brokers come from the environment, where `stream:` names variables."""

import os

from ml_platform.streams.protocols import StreamMisfit


def expanded(value: str, name: str) -> str:
    """Replace $VARIABLES of the environment.

    Raises
    ------
    StreamMisfit
        For one that is not set.
    """
    replaced = os.path.expandvars(value)
    if "$" in value and replaced == value:
        raise StreamMisfit(f"stream.source: '{name}' wants a variable of the environment that is not set: {value}")
    return replaced
