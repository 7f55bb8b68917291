"""A folder with a `defs.yaml` becomes a model; a scaffolded folder loads as it is."""

from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest

from ml_platform.features.training_sets.build import build_training_set
from ml_platform.features.training_sets.leakage import find_leakage
from ml_platform.features.views.load import load_views
from ml_platform.orchestration.component import TabularModel
from ml_platform.orchestration.model_defs import build_model_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.scaffold import LABELS, TabularModelParams, TabularModelScaffolder
from ml_platform.spec_yaml import load_spec
from ml_platform.training.data.split import split_by_time


def scaffold(folder: Path, task: str) -> Path:
    request = dg.ScaffoldRequest(
        type_name="ml_platform.orchestration.TabularModel",
        target_path=folder,
        scaffold_format="yaml",
        project_root=None,
        params=TabularModelParams.model_validate({"task": task, "target": "outcome"}),
    )
    TabularModelScaffolder().scaffold(request)
    return folder


@pytest.mark.parametrize("task", sorted(LABELS))
def test_a_scaffolded_model_is_valid(tmp_path, task):
    folder = scaffold(tmp_path / "new_model", task)
    spec = load_spec(folder / "defs.yaml", views={})
    assert (spec.name, spec.task, spec.target) == ("new_model", task, "outcome")
    assert f"AS {spec.target}" in (folder / spec.spine).read_text()


@pytest.mark.parametrize("task", sorted(LABELS))
def test_the_rows_of_a_scaffolded_model_can_be_trained_on(lake, tmp_path, task):
    folder = scaffold(tmp_path / "new_model", task)
    spec = load_spec(folder / "defs.yaml", views={})
    ref = build_training_set(lake, spec, folder, {})
    rows = lake.read(ref.table).collect()
    parts = split_by_time(rows, spec)
    assert min(parts.train.height, parts.validation.height, parts.holdout.height) > 300
    report = find_leakage(rows, ref.features, target=spec.target, task=spec.task, limits=spec.leakage)
    assert (report.judged, report.leaks) == (True, ())


def test_a_model_is_not_scaffolded_in_python(tmp_path):
    request = dg.ScaffoldRequest(
        type_name="T", target_path=tmp_path, scaffold_format="python", project_root=None, params=TabularModelParams()
    )
    with pytest.raises(ValueError, match="declared in YAML"):
        TabularModelScaffolder().scaffold(request)


def test_the_schema_of_the_component_is_the_spec():
    schema = TabularModel.get_model_cls().model_json_schema()
    assert {"name", "task", "spine", "lookups", "promotion", "retraining"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_a_folder_alone_makes_a_model_of_its_own(tmp_path, settings):
    """Loaded as Dagster loads a project's defs folder: no code but the folder."""
    defs = tmp_path / "defs"
    scaffold(defs / "new_model", "binary")
    views = defs / "features"
    views.mkdir()
    (views / "readings.sql").write_text(
        dedent("""\
        /*
        description: Newest reading.
        owner: tests@example.com
        entity: [sensor]
        columns:
          value: {type: number, description: As read.}
        */
        SELECT sensor, event_time, value FROM raw.readings
        """)
    )
    (defs / "new_model" / "defs.yaml").write_text(
        (defs / "new_model" / "defs.yaml")
        .read_text()
        .replace("lookups: []", "lookups: [{view: readings, keys: {sensor: row_id}}]")
    )
    project = load_views(views)
    spec = load_spec(defs / "new_model" / "defs.yaml", {name: view.columns for name, view in project.items()})
    built = dg.Definitions.merge(
        build_model_defs(spec, defs / "new_model", project), dg.Definitions(resources=build_resources(settings))
    )
    graph = built.resolve_asset_graph()
    assert dg.AssetKey(["features", "readings"]) in graph.get(dg.AssetKey(["new_model", "training_set"])).parent_keys
    assert {job.name for job in built.jobs or ()} == {
        f"new_model_{job}"
        for job in ("retrain", "score", "watch", "skew", "recalibrate", "replay", "rollback", "traffic", "approval")
    }
