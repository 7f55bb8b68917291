"""Moves a project to another version of the engine and of the template that it was made from.

    python -m ml_platform.upgrade [--to VERSION] [--dry-run]

`make upgrade` runs it in the project's folder. Only what finds the other version is here: a clone of it is made, and
its `hooks/upgrade.py` does the work, so that an old engine need not know what has changed since.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RECORD = ".template.json"


class UpgradeError(Exception):
    """What was wanted, what was found, and what to do next."""


def destination(version: str, source: str) -> tuple[str, str]:
    """Return the repository that a version names, and the tag, branch or commit in it; "HEAD" where none is named.

    Parameters
    ----------
    version
        A tag, branch or commit of the source; or another repository, a URL or a path that begins with `/`, `.` or `~`,
        with `#` and a tag, branch or commit behind it or without. Empty for the newest of the source.
    source
        The repository that the project's template comes from.

    Examples
    --------
    >>> destination("v0.3.0", "https://example.com/engine.git")
    ('https://example.com/engine.git', 'v0.3.0')
    >>> destination("git@example.com:ml/engine#main", "https://example.com/engine.git")
    ('git@example.com:ml/engine', 'main')
    """
    repository, _, reference = version.partition("#")
    if re.match(r"[/.~]", repository):
        return str(Path(repository).expanduser().resolve()), reference or "HEAD"
    if "://" in repository or re.match(r"[\w.-]+@[\w.-]+:", repository):
        return repository.removeprefix("git+"), reference or "HEAD"
    return source.removeprefix("git+"), version or "HEAD"


def read_record(project: Path) -> dict[str, Any]:
    """Return what a project records of its template: its source, its commit and the answers.

    Raises
    ------
    UpgradeError
        When the project was not made by this template, is looked after by cruft, is not the top of a git repository,
        or has changes that are not committed.
    """
    if (project / ".cruft.json").exists():
        raise UpgradeError("this project was made by cruft, which upgrades it: `cruft update`, then `make lock test`")
    path = project / RECORD
    if not path.is_file():
        raise UpgradeError(f"{path}: wanted the record that the template leaves in a project, found none: this project "
                           "was not made by a template that can upgrade it; move the engine's pin by hand")  # fmt: skip
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        missing = {"source", "commit", "answers"} - set(record)
    except ValueError as error:
        raise UpgradeError(f"{path} is not JSON ({error}): take it back from an earlier commit") from error
    if missing:
        raise UpgradeError(f"{path}: {', '.join(sorted(missing))} missing: take it back from an earlier commit")
    if git(project, "rev-parse", "--show-prefix") != "":
        raise UpgradeError(f"{project}: wanted the top folder of a git repository, found a folder in one: an upgrade "
                           "is a merge of the whole repository")  # fmt: skip
    if changed := git(project, "status", "--porcelain"):
        raise UpgradeError("wanted a working tree without changes, so that the upgrade can be taken back; found\n"
                           f"{changed}\ncommit or `git stash -u` them first")  # fmt: skip
    return record


def clone(repository: str, reference: str, folder: Path) -> None:
    """Clone a repository into a folder and check out a tag, branch or commit.

    Raises
    ------
    UpgradeError
        When there is no such repository, or it has no such version or one that is older than upgrades.
    """
    git(folder.parent, "clone", "--quiet", repository, str(folder))
    for name in (f"origin/{reference}", reference):
        command = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            git(folder, "checkout", "--quiet", "--detach", done.stdout.strip())
            break
    else:
        raise UpgradeError(f"{repository}: wanted the version {reference!r}, found no tag, branch or commit of that "
                           f"name: `git ls-remote {repository}` lists them")  # fmt: skip
    if not (folder / "hooks" / "upgrade.py").is_file():
        raise UpgradeError(f"{repository} at {reference}: wanted a version of the template that can upgrade a project, "
                           "found none there: name a newer one, or another repository, with TO")  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it prints.

    Raises
    ------
    UpgradeError
        With git's own words.
    """
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UpgradeError(f"{' '.join(command)} in {folder} failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


def environment() -> dict[str, str]:
    """Return the environment without what a hook of git sets, which would point git at another repository."""
    return {key: value for key, value in os.environ.items() if key not in {"GIT_DIR", "GIT_WORK_TREE"}}


def main() -> None:
    """Upgrade the project in the current directory; exits with 1 where something is left to do."""
    parser = argparse.ArgumentParser(prog="make upgrade", description="TO=<tag, branch, commit, path or URL> DRY=1")
    parser.add_argument("--to", default="")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    project = Path.cwd()
    try:
        repository, reference = destination(arguments.to, read_record(project)["source"])
        with tempfile.TemporaryDirectory() as workspace:
            checkout = Path(workspace, "template")
            clone(repository, reference, checkout)
            command = [sys.executable, str(checkout / "hooks" / "upgrade.py"), str(project), repository]
            command += ["--dry-run"] if arguments.dry_run else []
            sys.exit(subprocess.run(command, env=environment(), check=False).returncode)
    except UpgradeError as error:
        sys.exit(f"make upgrade: {error}")


if __name__ == "__main__":
    main()
