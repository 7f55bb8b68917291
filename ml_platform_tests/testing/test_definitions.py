"""Definitions that load, and the engine's report of those that do not."""

import pytest

from ml_platform.testing import check_definitions_load, models, tables, views
from ml_platform_tests.testing.shop_project import ShopProject


def test_a_project_without_definitions_loads_and_has_nothing_to_check(new_project: ShopProject) -> None:
    check_definitions_load()
    assert (tables(), views(), models()) == ((), (), ())


def test_a_project_with_definitions_loads_and_names_them(project: ShopProject) -> None:
    project.write_model()
    check_definitions_load()
    assert (tables(), views(), models()) == (("raw/loads", "raw/orders"), ("shop_load",), ("order_late",))


def test_all_mistakes_are_reported_as_the_engine_reports_them(project: ShopProject) -> None:
    project.write_model()
    path = project.defs / "order_late" / "defs.yaml"
    text = path.read_text().replace("task: binary", "task: binery").replace("families:", "famillies:")
    path.write_text(text)
    lines = [number for number, line in enumerate(text.splitlines(), 1) if "binery" in line or "famillies" in line]
    with pytest.raises(AssertionError, match="wanted the definitions of") as caught:
        check_definitions_load()
    for line in lines:
        assert f"{path}:{line}" in str(caught.value)
    assert "families" in str(caught.value)


def test_definitions_by_two_names_are_refused_as_dagster_refuses_them(new_project: ShopProject) -> None:
    path = new_project.root / new_project.package / "definitions.py"
    path.write_text(path.read_text() + "\nother = defs\n")
    with pytest.raises(AssertionError, match=r"by one name .* found 2"):
        check_definitions_load()
