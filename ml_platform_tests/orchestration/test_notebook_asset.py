"""A notebook as an asset: declared in YAML, materialised in a kernel, with its page; mistakes told with their line."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from ml_platform.notebook_files.runs import list_runs
from ml_platform.orchestration.notebook_asset import notebook_defs
from ml_platform.orchestration.notebook_scaffold import NotebookParams, NotebookScaffolder
from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.scaffolding import ScaffoldError
from ml_platform.settings import Settings
from ml_platform.spec.notebook import NotebookSpec
from ml_platform.spec_yaml import check_project, load_notebook
from ml_platform.yaml_documents import SpecError

TYPE = "ml_platform.orchestration.Notebook"
DECLARED = {
    "name": "weekly",
    "description": "How it does.",
    "owner": "ann@example.com",
    "notebook": "weekly.md",
    "after": ["raw/orders"],
    "schedule": "0 7 * * 1",
    "parameters": {"DAYS": 7},
}
TEXT = '```python tags=["parameters"]\nDAYS = 1\n```\n\n```python\nprint("days", 6 * DAYS)\n```\n'


def declare(folder: Path, text: str = TEXT, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weekly.md").write_text(text)
    path = folder / "defs.yaml"
    path.write_text(yaml.safe_dump({"type": TYPE, "attributes": {**DECLARED, **changes}}, sort_keys=False))
    return path


def materialise(settings: Settings, folder: Path) -> dg.ExecuteInProcessResult:
    definitions = notebook_defs(load_notebook(folder / "defs.yaml"), folder)
    [asset] = definitions.assets or ()
    assert isinstance(asset, dg.AssetsDefinition)
    return dg.materialize(
        [asset], resources={"platform": Platform(home=str(settings.home))}, selection=[asset], raise_on_error=False
    )


def test_it_is_run_with_its_parameters_and_its_page_is_kept(settings: Settings, tmp_path: Path) -> None:
    declare(tmp_path / "weekly")
    result = materialise(settings, tmp_path / "weekly")
    assert result.success
    [made] = result.asset_materializations_for_node("notebooks__weekly")
    page = Path(str(made.metadata["page"].value))
    assert "days 42" in page.read_text()
    assert page == list_runs(settings.notebooks_dir, "weekly")[0].page
    assert "6 * DAYS" not in page.read_text()  # the code is not shown


def test_a_cell_that_fails_fails_the_run_and_names_the_page(settings: Settings, tmp_path: Path) -> None:
    declare(tmp_path / "weekly", TEXT.replace("6 * DAYS", "6 / (DAYS - 7)"))
    result = materialise(settings, tmp_path / "weekly")
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "weekly.md: cell 3: ZeroDivisionError" in failure.step_failure_data.error_display_string
    assert list_runs(settings.notebooks_dir, "weekly")[0].error == "cell 3: ZeroDivisionError: division by zero"


def test_its_schedule_and_what_it_is_made_of(tmp_path: Path) -> None:
    definitions = notebook_defs(NotebookSpec.model_validate(DECLARED), tmp_path)
    [schedule] = definitions.schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.name, schedule.cron_schedule) == ("weekly_notebook_schedule", "0 7 * * 1")
    [asset] = definitions.assets or ()
    assert isinstance(asset, dg.AssetsDefinition)
    assert asset.asset_deps[dg.AssetKey(["notebooks", "weekly"])] == {dg.AssetKey(["raw", "orders"])}
    unscheduled = notebook_defs(NotebookSpec.model_validate({**DECLARED, "schedule": None}), tmp_path)
    assert not unscheduled.schedules


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"notebook": "weekley.md"}, r"defs.yaml:6: notebook: no file 'weekley.md' .*did you mean 'weekly.md'\?"),
        ({"shedule": "@daily"}, "defs.yaml:12: shedule: .*did you mean 'schedule'"),
        ({"schedule": "every day"}, "defs.yaml:9: schedule: "),
        ({"parameters": {"day": object}}, "parameters"),
        ({"time_limit": "0 hours"}, "time_limit: .*longer than 0"),
        ({"keep": 0}, "keep: "),
        ({"name": "Weekly"}, "defs.yaml:3: name: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if "parameters" in changes:
        changes = {"parameters": {"day": __import__("datetime").date(2024, 5, 1)}}  # JSON has no dates
    path = declare(tmp_path / "weekly", **changes)
    with pytest.raises(SpecError, match=message):
        load_notebook(path)
    with pytest.raises(SpecError, match=message):
        check_project(tmp_path, {})


def test_two_of_one_name_are_told(tmp_path: Path) -> None:
    declare(tmp_path / "a")
    declare(tmp_path / "b")
    with pytest.raises(SpecError, match="'weekly' is already the notebook of"):
        check_project(tmp_path, {})


def test_the_scaffold_writes_a_report_about_a_model(tmp_path: Path) -> None:
    def scaffold(model: str, name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        request = dg.ScaffoldRequest(
            type_name=TYPE,
            target_path=folder,
            scaffold_format="yaml",
            project_root=None,
            params=NotebookParams(model=model),
        )
        NotebookScaffolder().scaffold(request)
        return folder

    folder = scaffold("flight_delay", "delays")
    spec = load_notebook(folder / "defs.yaml")
    assert (spec.name, spec.parameters, spec.after[0]) == ("delays", {"DAYS": 60}, "flight_delay/performance")
    assert 'MODEL = "flight_delay"' in (folder / "notebook.md").read_text()
    with pytest.raises(ScaffoldError, match="did you mean 'flight_delay'"):
        scaffold("flight_dela", "other")
    assert not (tmp_path / "other").exists()
