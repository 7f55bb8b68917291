"""Which code made a model: the project's, and the engine's that it ran on."""

import json
import subprocess
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ml_platform.distribution import DISTRIBUTION
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
    return _commit(project.root, project.package)


@cache
def engine_code_version() -> str:
    """Version of the installed engine, with its commit where it was installed from a git repository or a checkout.

    Returns
    -------
    str
        As `0.2.0+g1a2b3c4d5e6f`; a checkout that was changed ends in `-dirty`. A wheel has the commit in its version.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        When the engine is not installed.
    """
    engine = distribution(DISTRIBUTION)
    return version_with_commit(engine.version, engine.read_text("direct_url.json"))


def version_with_commit(version: str, direct_url: str | None) -> str:
    """Return a version with the commit that `direct_url.json` leads to, if there is one.

    Examples
    --------
    >>> version_with_commit("0.2.0", '{"url": "https://git/x", "vcs_info": {"commit_id": "1a2b3c4d5e6f7a8b9c0d"}}')
    '0.2.0+g1a2b3c4d5e6f'
    """
    source = json.loads(direct_url or "{}")
    if commit := source.get("vcs_info", {}).get("commit_id"):
        return f"{version}+g{commit[:12]}"
    if source.get("dir_info", {}).get("editable"):
        commit = _commit(Path(unquote(urlsplit(source["url"]).path)), "ml_platform")
        if commit != NOT_VERSIONED:
            return f"{version}+g{commit[:12]}{commit[40:]}"
    return version


def _commit(root: Path, package: str) -> str:
    try:
        result = _git(root, "rev-parse", "--verify", "HEAD")
    except FileNotFoundError:  # git is not installed
        return NOT_VERSIONED
    if result.returncode != 0:
        return NOT_VERSIONED
    changed = _status(root, "--untracked-files=no") or _status(root, "--untracked-files=normal", "--", package)
    return result.stdout.strip() + ("-dirty" if changed else "")


def _status(root: Path, *arguments: str) -> str:
    status = _git(root, "status", "--porcelain", *arguments)
    if status.returncode != 0:
        raise RuntimeError(f"git status in {root} failed: {status.stderr.strip()}")
    return status.stdout.strip()


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30)
