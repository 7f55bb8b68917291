"""Asks a process of its own for what takes a reader of tables: the server loads none."""

import os
import subprocess
import sys
from typing import TypeVar

import msgspec

from ml_platform.settings import Settings

SECONDS = 60.0  # that an answer may take
_Answer = TypeVar("_Answer")


class NoAnswer(RuntimeError):
    """The process failed, took too long, or what it needs is not installed; the text is for who asked."""


def ask(module: str, question: object, settings: Settings, answer: type[_Answer]) -> _Answer:
    """Run a module that reads a question as JSON and writes an answer (raises NoAnswer)."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=msgspec.json.encode(question),
            env={**os.environ, "ML_PLATFORM_HOME": str(settings.home), "ML_PLATFORM_LAKE_URI": settings.lake_uri},
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"It was not read within {SECONDS:g} s: try again, or use the command.") from None
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it ended without a word"]
        if "ModuleNotFoundError" in last[0]:
            raise NoAnswer("This server is installed without what reads tables: use the command.")
        raise NoAnswer(f"It could not be read: {last[0]}")
    return msgspec.json.decode(done.stdout, type=answer)
