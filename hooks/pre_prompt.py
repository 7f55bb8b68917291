"""Turns cookiecutter's own copy of this repository into a template, so that nothing is stored twice.

Cookiecutter wants a folder named after a variable; the repository has none, because it is a living project. So what git
knows of the project is copied there, as it is: `_copy_without_render` keeps Jinja away from the contents, and
`post_gen_project.py` gives the copy its new name.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TEMPLATE = "{" + "{cookiecutter.project_slug}" + "}"
# What makes the template a template has no place in a project made from it.
LEFT_OUT = ("hooks/", "cookiecutter.json", "ml_platform_tests/template/", "data/", TEMPLATE)
KEPT = "data/README.md"


def project_files(repository: Path) -> list:
    """Return the paths that git tracks or would track: neither data nor environments nor caches.

    Raises
    ------
    SystemExit
        When git is missing or fails, with its own words.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    commands = [["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]]
    if not (repository / ".git").exists():  # an unpacked archive: an empty repository applies .gitignore all the same
        commands.insert(0, ["git", "init", "--quiet"])
    for command in commands:
        try:
            done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, check=False)
        except FileNotFoundError:
            sys.exit("git is needed to read the template and was not found: install git")
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed: {done.stderr.decode().strip()}")
    names = sorted({os.fsdecode(name) for name in done.stdout.split(b"\0") if name})
    return [name for name in names if name == KEPT or not name.startswith(LEFT_OUT)]


def main() -> None:
    """Fill the template folder of the repository in the current directory."""
    repository = Path.cwd()
    for name in project_files(repository):
        source, target = repository / name, repository / TEMPLATE / name
        if not source.is_file():  # deleted in the working tree, still in the index
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


if __name__ == "__main__":
    main()
