"""Merges what has changed in the template into a project, and moves its engine to this checkout's commit.

    python hooks/upgrade.py PROJECT SOURCE [--dry-run]

`make upgrade` of a project runs it in a clone of SOURCE. The template is rendered with the project's own answers and
becomes a commit whose parent is the rendering before it, the project's first commit or the last upgrade's. Git merges
that commit as any other. As it gets into the project's history, the next upgrade needs nothing that is kept elsewhere.

The engine's pin, its wheel and the lock are not merged, as the project may have extras and dependencies of its own: the
rendering is merged with those of the rendering before, and the new ones are written into the result.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine_wheel import DISTRIBUTION, FILE_NAME, PIN, pin
from state_check import check_state, database_changes

CHECKOUT = Path(__file__).resolve().parents[1]
TRAILER = "Template-Tree"  # of a commit that is a rendering: its own tree, which no squashed commit has
ENGINE_FILES = ("requirements.lock", "vendor")


class Git:
    """Runs git in one repository, for whoever the project says owns it."""

    def __init__(self, folder: Path, answers: "dict[str, str]") -> None:
        self.folder = folder
        self.options = [
            *("-c", f"user.name={answers['project_name']}", "-c", f"user.email={answers['owner_email']}"),
            *("-c", "merge.renames=true"),
        ]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run git and return how it went."""
        return subprocess.run(
            ["git", *self.options, *arguments], cwd=self.folder, capture_output=True, text=True, check=False
        )

    def __call__(self, *arguments: str) -> str:
        """Run git and return what it prints; end with its own words where it fails."""
        done = self.run(*arguments)
        if done.returncode:
            sys.exit(f"git {' '.join(arguments)} in {self.folder} failed: {done.stderr.strip()}")
        return done.stdout.strip()


def render(checkout: Path, source: str, answers: "dict[str, str]", output: Path) -> Path:
    """Return the folder of a rendering of a checkout's template, which is a git repository with one commit."""
    output.mkdir()
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "hooks" / "render.py"), str(checkout), source, str(output)],
        input=json.dumps(answers),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"the template of {source} cannot be rendered with the answers in .template.json:\n{done.stderr}")
    return next(output.iterdir())


def last_rendering(git: Git, record: "dict[str, Any]") -> "str | None":
    """Return the commit of the project's history that is the rendering it was made from or last upgraded to.

    None where there is none of the recorded version: an upgrade's commits may have been squashed into one, which has
    the project's own changes too.
    """
    form = f"--format=%H %T %(trailers:key={TRAILER},valueonly,separator=%x20)"
    for line in git("log", "--topo-order", form, "HEAD").splitlines():
        commit, tree, *trailers = line.split()
        if tree in trailers:
            rendered = json.loads(git("show", f"{commit}:.template.json"))
            return commit if rendered["commit"] == record["commit"] else None
    return None


def render_again(git: Git, record: "dict[str, Any]", workspace: Path) -> str:
    """Render the recorded version anew from this clone's history, and return its commit in the project."""
    checkout, commit = workspace / "recorded", record["commit"]
    here = Git(CHECKOUT, record["answers"])
    if not commit or here.run("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        sys.exit(
            "make upgrade: wanted the rendering of the template that the project was made from, found neither a commit "
            f"of it in the project's history nor the template's commit {commit} in this repository: name one that has "
            f"it with TO, first at this version (TO='<path or URL>#{commit}')"
        )
    here("clone", "--quiet", str(CHECKOUT), str(checkout))
    Git(checkout, record["answers"])("checkout", "--quiet", "--detach", commit)
    rendered = render(checkout, record["source"], record["answers"], workspace / "rendered-again")
    git("fetch", "--quiet", "--no-tags", str(rendered), "HEAD")
    return git("rev-parse", "FETCH_HEAD")


def commit_rendering(git: Git, rendering: Path, base: str, workspace: Path) -> str:
    """Commit the rendering on top of the one before, with the engine of that one, and return the project's commit."""
    copy = Git(workspace / "copy", {"project_name": "template", "owner_email": "template@localhost"})
    git("clone", "--quiet", str(rendering), str(copy.folder))
    git("push", "--quiet", str(copy.folder), f"{base}:refs/heads/base")
    copy("rm", "-r", "--quiet", "--ignore-unmatch", *ENGINE_FILES)
    kept = copy("ls-tree", "--name-only", base, *ENGINE_FILES).splitlines()
    if kept:
        copy("checkout", base, "--", *kept)
    pin(copy.folder, engine_pin(copy("show", f"{base}:pyproject.toml")))
    copy("add", "--all", "--force")
    tree = copy("write-tree")
    if tree == git("rev-parse", f"{base}^{{tree}}"):
        return base
    git("fetch", "--quiet", "--no-tags", str(commit_tree(copy, tree, base)), "refs/heads/rendered")
    return git("rev-parse", "FETCH_HEAD")


def commit_tree(copy: Git, tree: str, base: str) -> Path:
    """Commit a tree as a rendering in the branch `rendered` of a repository, and return the repository's folder."""
    message = f"Rendering of the template\n\n{TRAILER}: {tree}"
    copy("update-ref", "refs/heads/rendered", copy("commit-tree", tree, "-p", base, "-m", message))
    return copy.folder


def merge(git: Git, base: str, rendered: str, title: str) -> None:
    """Merge a rendering into the project without committing; conflicts are left as git leaves them."""
    head = git("rev-parse", "HEAD")
    related = not git.run("merge-base", "--is-ancestor", base, head).returncode
    if not related:  # git takes the merge's base from the history
        git("replace", "--graft", head, *git("log", "-1", "--format=%P", head).split(), base)
    try:
        done = git.run("merge", "--no-commit", "--no-ff", "-m", title, rendered)
    finally:
        if not related:
            git("replace", "--delete", head)
    if done.returncode and not conflicts(git):
        sys.exit(f"git merge {rendered} in {git.folder} failed: {done.stdout}{done.stderr}")


def conflicts(git: Git) -> "list[str]":
    """Return the names of the files that git could not merge."""
    return git("diff", "--name-only", "--diff-filter=U").splitlines()


def engine_pin(pyproject: str) -> str:
    """Return what follows the engine's name in the text of a `pyproject.toml`: `==<version>` or ` @ <URL>`."""
    match = PIN.search(pyproject)
    if match is None:
        return sys.exit(
            f"make upgrade: pyproject.toml: wanted a dependency on {DISTRIBUTION} with its version, found none; add one"
        )
    return match[0].removeprefix(match[1])


def version(requirement: str) -> str:
    """Return the version of a pin, or the commit at the end of its URL."""
    return re.split("==|@", requirement)[-1].strip()


def locked(lock: str) -> "dict[str, list[str]]":
    """Return the lines of each package in the text of a lock; one may have several, with markers."""
    lines: dict[str, list[str]] = {}
    for line in lock.splitlines():
        if match := re.match(r"([\w.-]+)(\[[\w,.-]+\])?\s*(==|@)", line):
            lines.setdefault(re.sub(r"[-_.]+", "-", match[1]).lower(), []).append(line)
    return lines


def new_lock(before: str, project: str, after: str) -> str:
    """Return the lock of the new engine, with the packages that the project has added to the one it was made with."""
    additions = locked(project).keys() - locked(before).keys() - locked(after).keys()
    lines = [line for name, lines in sorted(locked(project).items()) if name in additions for line in lines]
    return after + "".join(f"{line}\n" for line in lines)


def locked_versions(lock: str) -> "dict[str, str]":
    """Return the version of each package that a lock pins once."""
    return {name: re.split(r"==|;", lines[0])[1].strip() for name, lines in locked(lock).items() if "==" in lines[0]}


def move_engine(git: Git, rendering: Path, base: str) -> None:
    """Write the new engine's pin, wheel and lock into the project, and stage them where they have no conflict."""
    project, unmerged = git.folder, conflicts(git)
    before, current = (git.run("show", f"{commit}:requirements.lock").stdout for commit in (base, "HEAD"))
    lock = new_lock(before, current, (rendering / "requirements.lock").read_text("utf-8"))
    (project / "requirements.lock").write_text(lock, "utf-8")
    git("rm", "--quiet", "--ignore-unmatch", f"vendor/{FILE_NAME}-*.whl")
    for wheel in rendering.glob(f"vendor/{FILE_NAME}-*.whl"):
        (project / "vendor").mkdir(exist_ok=True)
        shutil.copy2(wheel, project / "vendor")
        git("add", "--force", f"vendor/{wheel.name}")
    pin(project, engine_pin((rendering / "pyproject.toml").read_text("utf-8")))
    git("add", "--force", *(name for name in ("requirements.lock", "pyproject.toml") if name not in unmerged))


def changes(record: "dict[str, Any]", source: str) -> str:
    """Return the lines that the changelog has gained since the recorded version."""
    here = Git(CHECKOUT, record["answers"])
    done = here.run("diff", "--unified=0", str(record["commit"]), "HEAD", "--", "CHANGELOG.md")
    if done.returncode:
        return f"What has changed since is in CHANGELOG.md of {source}."
    lines = [line[1:] for line in done.stdout.splitlines() if re.match(r"\+(?!\+\+ )", line)]
    return "\n".join(["The changelog since then:", *(lines or ["(nothing)"])])


def upgrade(project: Path, source: str, workspace: Path, *, dry_run: bool) -> int:
    """Upgrade a project without uncommitted changes; return 1 where conflicts or unreadable state are left, else 0."""
    record = json.loads((project / ".template.json").read_text("utf-8"))
    git = Git(project, record["answers"])
    old_pin = engine_pin((project / "pyproject.toml").read_text("utf-8"))
    if dry_run:
        git("clone", "--quiet", str(project), str(workspace / "trial"))
        git = Git(workspace / "trial", record["answers"])
    rendering = render(CHECKOUT, source, record["answers"], workspace / "rendering")
    new_pin = engine_pin((rendering / "pyproject.toml").read_text("utf-8"))
    base = last_rendering(git, record) or render_again(git, record, workspace)
    rendered = commit_rendering(git, rendering, base, workspace)
    if rendered == base and new_pin == old_pin:
        print(f"The project is at that version already: {version(old_pin)}. Nothing to do.")
        return 0
    title = f"Upgrade {DISTRIBUTION} from {version(old_pin)} to {version(new_pin)}"
    if rendered != base:
        merge(git, base, rendered, title)
    move_engine(git, rendering, base)
    unmerged = conflicts(git)
    state, breaks = check_state(project)
    locks = (git.run("show", "HEAD:requirements.lock").stdout, (rendering / "requirements.lock").read_text("utf-8"))
    state += database_changes(*map(locked_versions, locks))
    print(f"{title}\n\n{git('diff', '--cached', '--stat', 'HEAD')}\n\n{changes(record, source)}\n")
    print("\n".join(state) + "\n")
    for name in unmerged:
        print(f"conflict: {name}")
    if dry_run:
        print("Nothing was changed: this is what `make upgrade` without DRY=1 would do.")
    else:
        if unmerged:
            print("Both sides changed these. Edit them, then `git add` them: `git diff` shows what is left.")
        print("Next: `make test`, then `git commit`. `git merge --abort` instead takes all of it back.")
    if breaks:
        print("The new engine does not read all that is stored: see above, and back up before you go on.")
    return 1 if unmerged or breaks else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("project", type=Path)
    parser.add_argument("source")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as workspace:
        project, source = arguments.project.resolve(), arguments.source
        return upgrade(project, source, Path(workspace).resolve(), dry_run=arguments.dry_run)


if __name__ == "__main__":
    sys.exit(main())
