"""Refuses answers that would make a broken project, before a file is written; each line says what to answer instead."""

import json
import keyword
import re
import sys

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# Import names that differ from their distribution's, and the folders beside the package.
TAKEN = {"sklearn", "yaml", "dateutil", "google", "attr", "git", "pkg_resources", "pytest", "setuptools", "pip"}
FOLDERS = {"bootstrap", "data", "deploy", "serving", "tests", "vendor"}
ENGINE = {"ml_platform", "dagster_ml_platform"}


def complaints() -> list:
    """Return what is wrong with the answers, a sentence each."""
    package, slug = ANSWERS["package_name"], ANSWERS["project_slug"]
    wrong = []
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package) or package.endswith("_") or "__" in package:
        wrong.append(
            f"package_name: {package!r} is not a valid package name: lower-case letters, digits, single underscores, "
            "beginning with a letter, for example 'churn_lab'"
        )
    elif keyword.iskeyword(package) or package in getattr(sys, "stdlib_module_names", ()):
        wrong.append(f"package_name: {package!r} is a word or module of Python itself: take another")
    elif package in TAKEN | ENGINE:
        wrong.append(f"package_name: {package!r} is a package that the project depends on: take another")
    elif package in FOLDERS:
        wrong.append(f"package_name: {package!r} is a folder of the project: take another")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        wrong.append(
            f"project_slug: {slug!r} is not a valid name: lower-case letters, digits and single hyphens, "
            "for example 'churn-lab'"
        )
    elif slug.replace("-", "_") in ENGINE:
        wrong.append(f"project_slug: {slug!r} is a package that the project depends on: take another")
    if not ANSWERS["project_name"].strip() or not ANSWERS["project_name"].isprintable():
        wrong.append("project_name: wanted one line of text, found nothing or control characters")
    if not ANSWERS["description"].strip() or not ANSWERS["description"].isprintable():
        wrong.append("description: wanted one line of text, found nothing or control characters")
    if not re.fullmatch(r"[^@\s'\"]+@[^@\s'\"]+\.[^@\s'\"]+", ANSWERS["owner_email"]):
        wrong.append(
            f"owner_email: {ANSWERS['owner_email']!r} is not an e-mail address: for example 'team@example.com'"
        )
    return wrong


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whatever Python cookiecutter runs on
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(
            f"cookiecutter runs on Python {found}, this template needs 3.11 or newer: install it with such a Python"
        )
    if wrong := complaints():
        sys.exit("\n".join(wrong))
