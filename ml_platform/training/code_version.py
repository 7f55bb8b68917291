"""Which code trained a model."""

import subprocess
from pathlib import Path

from ml_platform.settings import PROJECT_ROOT

NOT_VERSIONED = "not under version control"


def code_version(root: Path = PROJECT_ROOT) -> str:
    """Git commit of the project, with `-dirty` when tracked files differ from it; `NOT_VERSIONED` outside of git.

    Raises
    ------
    RuntimeError
        When git itself fails on a repository, with what it said.
    """
    try:
        found = _git(root, "rev-parse", "--verify", "HEAD")
    except FileNotFoundError:  # git is not installed
        return NOT_VERSIONED
    if found.returncode != 0:
        return NOT_VERSIONED
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    if status.returncode != 0:
        raise RuntimeError(f"git status in {root} failed: {status.stderr.strip()}")
    return found.stdout.strip() + ("-dirty" if status.stdout.strip() else "")


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30)
