"""The engine's families by name: what is known of them without their libraries is so."""

import re
import subprocess
import sys

import pytest

from ml_platform.spec import families
from ml_platform.spec.families import BUILT_IN, FamilyInfo, family_info
from ml_platform.training.families.registry import get_family
from ml_platform_tests.paths import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "how-to" / "models" / "families.md"


def test_no_library_is_loaded_by_knowing_all_families() -> None:
    code = (
        "from ml_platform.training.families import registry\n"
        "from importlib import import_module\n"
        "for path in registry._CLASSES.values():\n"
        "    import_module(f'ml_platform.training.families.{path.partition(\".\")[0]}')\n"
        "import sys\n"
        "heavy = {'sklearn', 'lightgbm', 'xgboost', 'catboost', 'torch', 'keras', 'tensorflow', 'onnx', 'optuna'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_the_page_says_what_is_known() -> None:
    rows = {
        row[0].strip("`"): row[1:]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `") and (row := [cell.strip() for cell in line.removesuffix("|").split("|")[1:]])
    }
    known = {
        name: [
            info.summary,
            ", ".join(info.tasks),
            info.missing,
            f"{info.tolerance:g}",
            f"`{info.extra}`" * bool(info.extra),
        ]
        for name, info in BUILT_IN.items()
    }
    assert rows == known


def test_an_unknown_family_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=re.escape("unknown family 'lightgmb'; did you mean 'lightgbm'? Allowed: ")):
        get_family("lightgmb")


def test_a_missing_library_is_told_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    info = FamilyInfo("absent", ("binary",), library="no_such_library", extra="torch")
    monkeypatch.setattr(families, "BUILT_IN", {"absent": info})
    with pytest.raises(ValueError, match=re.escape("needs no_such_library: pip install 'dagster-ml-platform[torch]'")):
        family_info("absent")
