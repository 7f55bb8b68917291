"""Completes a project made from the template: what it shares with this repository, the engine, the first commit."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
PACKAGE, WITH_FLIGHTS = ANSWERS["package_name"], ANSWERS["example"] == "flights"
DEPLOYED = ("grafana", "kubernetes", "kubernetes_in_flight", "kubernetes_login", "prometheus", "systemd")
# What a project has as it is here: files and folders, with their places there.
SHARED = {
    ".gitignore": ".gitignore",
    ".pre-commit-config.yaml": ".pre-commit-config.yaml",
    "data/README.md": "data/README.md",
    **{f"deploy/{name}": f"deploy/{name}" for name in ("README.md", "ray_serve.yaml", *DEPLOYED)},
    "ml_platform/bootstrap.py": "bootstrap.py",
    "ml_platform/definitions.py": f"{PACKAGE}/definitions.py",
    "requirements.lock": "requirements.lock",
    "serving": "serving",
}
EXAMPLE = {
    "ml_platform/defs": f"{PACKAGE}/defs",
    **{
        f"ml_platform_tests/defs/{name}": f"{PACKAGE}_tests/{name}"
        for name in ("test_project.py", "graph_snapshot.json")
    },
}


def template_repository(workspace: Path) -> Path:
    """Return the folder of the template's repository; the workspace is for a clone, where nobody says where it is."""
    folder = ANSWERS.get("_repo_dir")
    if folder is None:  # cruft says only which commit of which repository it renders
        clone = workspace / "template"
        git(workspace, "clone", "--quiet", ANSWERS["_template"], str(clone))
        git(clone, "checkout", "--quiet", ANSWERS["_commit"])
        return clone
    # A relative path is the user's, who was in one of these folders; this script is in the new project's.
    for start in (os.environ.get("PWD", ""), ANSWERS["_output_dir"]):
        if Path(start, folder, "cookiecutter.json").is_file():
            return Path(start, folder)
    return sys.exit(f"cannot tell where the template's folder {folder} is: call cookiecutter with its absolute path")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it prints; ends with its own words where it fails."""
    # Variables such as GIT_DIR, which a hook of git sets, would point it at another repository.
    environment = {key: value for key, value in os.environ.items() if key not in {"GIT_DIR", "GIT_WORK_TREE"}}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)} in {folder} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def check_names(repository: Path) -> None:
    """End with a line for each name that is a package the project depends on."""
    lock = (repository / "requirements.lock").read_text("utf-8")
    installed = {re.sub(r"[-.]", "_", name).lower() for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    names = {"package_name": PACKAGE, "project_slug": ANSWERS["project_slug"]}
    wrong = [
        f"{key}: {name!r} is a package that the project depends on: take another"
        for key, name in names.items()
        if name.replace("-", "_") in installed
    ]
    if wrong:
        sys.exit("\n".join(wrong))


def take(repository: Path, names: "dict[str, str]") -> None:
    """Copy files and folders of the repository to their places in the project."""
    for source, place in names.items():
        path, target = repository / source, Path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, target)


def adopt_example() -> None:
    """Give the flights to the project: its package in their imports, its owner in their front matter."""
    owner = yaml_text(ANSWERS["owner_email"])
    for path in sorted(Path(PACKAGE, "defs").rglob("*")):
        if path.suffix in {".py", ".yaml", ".sql"}:
            text = re.sub(r"\bml_platform\.defs\b", f"{PACKAGE}.defs", path.read_text("utf-8"))
            if path.suffix != ".py":
                text = re.sub(
                    r"^([ \t]*)owner:.*$", lambda match: f"{match[1]}owner: {owner}", text, flags=re.MULTILINE
                )
            path.write_text(text, "utf-8")


def yaml_text(value: str) -> str:
    """Return a text as YAML reads it back: plain where it can be, and never the end of an SQL comment around it."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*@[A-Za-z0-9.-]+", value):
        return value
    return json.dumps(value, ensure_ascii=False).replace("*/", "*\\/")


def published_url(repository: Path) -> "str | None":
    """Return the URL that the template was cloned from, as pip takes it; None where others could not fetch it."""
    is_url = re.match(r"(git\+)?(https?|ssh)://|[\w.-]+@[\w.-]+:|\w+:(?!/)", ANSWERS["_template"])
    if not is_url or not (repository / ".git").exists():
        return None
    url = re.sub(r"^git\+", "", git(repository, "config", "--get", "remote.origin.url"))
    url = re.sub(r"^([\w.-]+@[\w.-]+):(?!/)", r"ssh://\1/", url)  # git@host:owner/name
    if not re.match(r"(https?|ssh)://", url):
        return None
    return re.sub(r"^(https?://)[^/@]*@", r"\1", url)  # whoever's password it was


def pin_engine(repository: Path) -> str:
    """Pin the engine to the template's own commit, and return the pin."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(repository / "hooks"))
    import engine_wheel

    if url := published_url(repository):
        engine_wheel.pin(Path.cwd(), f" @ git+{url}@{git(repository, 'rev-parse', 'HEAD')}")
        return url
    return f"vendor/, version {engine_wheel.pin_wheel(repository, Path.cwd())}"


def record_template(repository: Path) -> None:
    """Write what an upgrade needs into `.template.json`: where the template is from, its commit and the answers.

    The commit is null where the template was not that of a commit.
    """
    git_folder = (repository / ".git").exists()
    of_a_commit = git_folder and not git(repository, "status", "--porcelain")
    record = {
        "source": published_url(repository) or local_source(),
        "commit": git(repository, "rev-parse", "HEAD") if of_a_commit else None,
        "answers": {key: value for key, value in ANSWERS.items() if not key.startswith("_")},
    }
    Path(".template.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")


def local_source() -> str:
    """Return the template's absolute path, or what else it was called."""
    for start in (os.environ.get("PWD", ""), ANSWERS.get("_output_dir", "")):
        path = Path(start, ANSWERS["_template"]).absolute()
        if path.exists():
            return os.path.normpath(path)
    return ANSWERS["_template"]


def first_commit() -> None:
    """Make the project a git repository with one commit, by the user's name or, where git has none, by the owner's.

    The commit names its own tree: an upgrade knows by it a commit that is as the template has rendered it.
    """
    identity = []
    for key, value in (("user.name", ANSWERS["project_name"]), ("user.email", ANSWERS["owner_email"])):
        if subprocess.run(["git", "config", key], capture_output=True, check=False).returncode:
            identity += ["-c", f"{key}={value}"]
    here = Path.cwd()
    git(here, "init", "--quiet")
    git(here, "symbolic-ref", "HEAD", "refs/heads/main")
    git(here, "add", "--all")
    message = f"Start {ANSWERS['project_name']}\n\nTemplate-Tree: {git(here, 'write-tree')}"
    git(here, *identity, "-c", "commit.gpgsign=false", "commit", "--quiet", "--no-verify", "--message", message)


def main() -> None:
    """Complete the project in the current directory and say what to do next."""
    with tempfile.TemporaryDirectory() as workspace:
        repository = template_repository(Path(workspace))
        check_names(repository)
        take(repository, SHARED | (EXAMPLE if WITH_FLIGHTS else {}))
        if WITH_FLIGHTS:
            adopt_example()
        engine = pin_engine(repository)
        record_template(repository)
    if "_repo_dir" in ANSWERS:  # cruft keeps its own file with the project, and compares projects without a repository
        first_commit()
    last = (
        "make demo     # real flights, from the tables to a served prediction"
        if WITH_FLIGHTS
        else "make dev      # Dagster, the server and MLflow, waiting for your first table, feature view and model"
    )
    print(
        f"\n{ANSWERS['project_name']} is ready, with the engine from {engine}. Next:\n"
        f"  cd {Path.cwd()}\n"
        "  make test     # sets everything up and runs the tests\n"
        f"  {last}"
    )


if __name__ == "__main__":
    main()
