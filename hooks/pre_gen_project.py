"""Refuses answers that would make a broken project, before a file is written; each line says what to answer instead."""

import json
import keyword
import re
import sys
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# Import names that differ from their distribution's, and the folders beside the package.
TAKEN = {"sklearn", "yaml", "dateutil", "google", "attr", "git", "pkg_resources", "pytest", "setuptools", "pip"}
FOLDERS = {"benchmarks", "data", "deploy", "docs", "hooks", "serving", "tests"}


def locked_packages() -> set:
    """Return the names, with underscores, of all packages that the project installs."""
    lock = Path(ANSWERS["_repo_dir"]) / ("{" + "{cookiecutter.project_slug}" + "}") / "requirements.lock"
    names = re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-.]", "_", name).lower() for name in names}


def complaints() -> list:
    """Return what is wrong with the answers, a sentence each."""
    package, slug = ANSWERS["package_name"], ANSWERS["project_slug"]
    installed = locked_packages()
    found = []
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package) or package.endswith("_") or "__" in package:
        found.append(
            f"package_name: {package!r} is not a valid package name: lower-case letters, digits, single underscores, "
            "beginning with a letter, for example 'churn_lab'"
        )
    elif keyword.iskeyword(package) or package in getattr(sys, "stdlib_module_names", ()):
        found.append(f"package_name: {package!r} is a word or module of Python itself: take another")
    elif package in installed | TAKEN:
        found.append(f"package_name: {package!r} is a package that the project depends on: take another")
    elif package in FOLDERS:
        found.append(f"package_name: {package!r} is a folder of the project: take another")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        found.append(
            f"project_slug: {slug!r} is no usable name: lower-case letters, digits and single hyphens, "
            "for example 'churn-lab'"
        )
    elif slug.replace("-", "_") in installed:
        found.append(f"project_slug: {slug!r} is a package that the project depends on: take another")
    if not ANSWERS["project_name"].strip() or not ANSWERS["project_name"].isprintable():
        found.append("project_name: wanted one line of text, found nothing or control characters")
    if not ANSWERS["description"].strip() or not ANSWERS["description"].isprintable():
        found.append("description: wanted one line of text, found nothing or control characters")
    if not re.fullmatch(r"[^@\s'\"]+@[^@\s'\"]+\.[^@\s'\"]+", ANSWERS["owner_email"]):
        found.append(f"owner_email: {ANSWERS['owner_email']!r} is no e-mail address: for example 'team@example.com'")
    return found


if __name__ == "__main__":
    if wrong := complaints():
        sys.exit("\n".join(wrong))
