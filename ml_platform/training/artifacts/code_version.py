"""Which code trained a model."""

import subprocess
from pathlib import Path

from ml_platform.project import Project, current_project

NOT_VERSIONED = "not under version control"


def code_version(project: Project | None = None) -> str:
    """Git commit of the project, with `-dirty` when it is not the code that runs; `NOT_VERSIONED` outside of git.

    That is so when tracked files differ, and when the package has files that were never added, as a new model's are.
    Files elsewhere that git does not track (a notebook, an export) train nothing.

    Raises
    ------
    RuntimeError
        When git itself fails on a repository, with what it said.
    """
    project = project or current_project()
    root = project.root
    try:
        found = _git(root, "rev-parse", "--verify", "HEAD")
    except FileNotFoundError:  # git is not installed
        return NOT_VERSIONED
    if found.returncode != 0:
        return NOT_VERSIONED
    changed = _status(root, "--untracked-files=no") or _status(root, "--untracked-files=normal", "--", project.package)
    return found.stdout.strip() + ("-dirty" if changed else "")


def _status(root: Path, *arguments: str) -> str:
    status = _git(root, "status", "--porcelain", *arguments)
    if status.returncode != 0:
        raise RuntimeError(f"git status in {root} failed: {status.stderr.strip()}")
    return status.stdout.strip()


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30)
