"""A project's own family: the class in the documentation, from the page to scores that are served."""

import re
from pathlib import Path

import pytest

from ml_platform.spec_yaml import check_project
from ml_platform.testing import check_family, check_model_serves_what_it_trained, family_cases, sample_home
from ml_platform.yaml_documents import SpecError
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.testing.shop_project import ShopProject, empty_project, fill_project, shop_tables, work_for

PAGE = PROJECT_ROOT / "docs" / "how-to" / "models" / "families.md"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShopProject:
    """A project with the class of the page in `defs/families/`."""
    [example] = [text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "class Single" in text]
    project = work_for(empty_project(tmp_path / "project"), monkeypatch)
    (project.defs / "families").mkdir()
    (project.defs / "families" / "single_tree.py").write_text(example)
    return project


def dotted(project: ShopProject, name: str = "SingleTree") -> str:
    return f"{project.package}.defs.families.single_tree.{name}"


def test_it_conforms(project: ShopProject) -> None:
    cases = family_cases(dotted(project))
    assert {case.task for case in cases} == {"binary", "regression"}
    assert len(cases) > 10
    for case in cases:
        check_family(case)


@pytest.mark.slow
def test_a_model_names_it_and_serves_its_scores(project: ShopProject, tmp_path: Path) -> None:
    """Definitions load with it; it is searched, trained, exported, released and served."""
    fill_project(project, shop_tables(tmp_path))
    project.write_model(families=[dotted(project)])
    home = sample_home(tmp_path / "home")
    check_model_serves_what_it_trained("order_late", home)
    [manifest] = (tmp_path / "home").rglob("manifest.json")
    assert '"family": "single_tree"' in manifest.read_text()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("SingleTrees", r"wanted the dotted path of a class .* has no attribute 'SingleTrees'"),
        ("np", r"wanted a subclass of ml_platform\.training\.EstimatorFamily with `info = FamilyInfo\(…\)`"),
    ],
)
def test_what_is_no_family_is_told_with_its_line(project: ShopProject, path: str, said: str) -> None:
    project.write_model(families=["ridge"], task="regression", target="minutes", spine="minutes.sql")
    declared = project.defs / "order_late" / "defs.yaml"
    declared.write_text(declared.read_text().replace("- ridge", f"- {dotted(project, path)}"))
    with pytest.raises(SpecError, match=said) as caught:
        check_project(project.defs, {})
    assert "order_late/defs.yaml:" in str(caught.value)


def test_it_cannot_do_a_task_that_it_does_not_name(project: ShopProject) -> None:
    with pytest.raises(
        ValueError, match="SingleTree'] cannot do task 'multiclass'; of the engine's families can: logi"
    ):
        project.write_model(families=[dotted(project)], task="multiclass", target="outcome", spine="outcome.sql")
