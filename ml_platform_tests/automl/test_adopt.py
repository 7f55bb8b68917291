"""A trial of a model's training set, and of a table, as a model of the project that its families name."""

from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform import project as projects
from ml_platform.automl.adopt import adopt_trial
from ml_platform.automl.documents import Entry, Leaderboard, Member
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plan import TableSource, plan_table
from ml_platform.automl.sources import find_model, plan_model
from ml_platform.cli import app
from ml_platform.lake.storage.tables import Lake
from ml_platform.project import Project, current_project
from ml_platform.settings import Settings
from ml_platform.training.families.registry import get_family
from ml_platform_tests.new_model.rows import calls

LIGHTGBM = Member(trial="lightgbm-3", family="lightgbm", params={"n_estimators": 20, "num_leaves": 15}, weight=0.75)
LINEAR = Member(trial="logistic_regression-0", family="logistic_regression", params={"C": 0.1}, weight=0.25)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Project:
    """An empty project of another package, which can be imported and is the one that commands work for."""
    package = f"shop_{abs(hash(request.node.name))}"
    (tmp_path / "pyproject.toml").write_text(f'[tool.dg.project]\nroot_module = "{package}"\n')
    (tmp_path / package / "defs").mkdir(parents=True)
    monkeypatch.setenv(projects.VARIABLE, str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return current_project()


def leaderboard(plan: object) -> Leaderboard:
    entry = Entry.model_validate(
        {
            "trial": "ensemble", "members": (LIGHTGBM, LINEAR), "validation": 0.8, "holdout": 0.79, "fit_seconds": 1,
            "predict_us": 1, "size_bytes": 9, "notebook": "ensemble.ipynb",
        }
    )  # fmt: skip
    lost = entry.model_copy(update={"trial": "no_graph", "size_bytes": None, "not_exported": "too large"})
    return Leaderboard.model_validate(
        {
            "plan": plan, "started": "2024-05-01T00:00:00Z", "minutes": 1, "seconds": 1, "trials": 1, "families": (),
            "higher_is_better": True, "train_rows": 1, "validation_rows": 1, "holdout_rows": 1, "confidence": 0.95,
            "blocks": "1 row", "entries": (entry, lost), "exploration": "exploration.ipynb",
        }
    )  # fmt: skip


def test_a_trial_of_a_table_becomes_a_folder_that_loads(project: Project) -> None:
    settings, lake = Settings(), Lake(Settings().lake_uri)
    clients = pl.Series("client", [f"c{number % 150}" for number in range(400)])
    version = lake.replace("raw/calls", calls().with_columns(clients))
    rows = lake.read("raw/calls").collect()
    source = TableSource("calls", "raw/calls", "raw/calls", lake.location("raw/calls"), version, rows)
    options = AutomlOptions(target="y", drop=("duration",), group="client", metric="log_loss")
    board = leaderboard(plan_table(source, options).plan)
    made = adopt_trial(project, settings, board, "ensemble", name="buyers")
    spec = find_model(project, "buyers").spec
    path = f"{project.package}.defs.buyers.adopted_trial.AdoptedTrial"
    assert spec.families == (path,)
    assert (spec.metric, spec.tuning.trials) == ("log_loss", 1)
    assert {field.name for field in spec.inputs if field.feature} == {"age", "job", "balance"}
    assert 'md5_number_upper("client"::VARCHAR)' in (project.defs / "buyers" / "spine.sql").read_text()
    family = get_family(path)
    assert [(one.family, dict(one.params), one.weight) for one in family.members] == [  # type: ignore[attr-defined]
        (one.family, one.params, one.weight) for one in (LIGHTGBM, LINEAR)
    ]
    assert {file.name for file in made.files} == {"defs.yaml", "spine.sql", "adopted_trial.py"}
    with pytest.raises(ValueError, match=r"no ONNX graph and cannot serve \(too large\)"):
        adopt_trial(project, settings, board, "no_graph")
    with pytest.raises(ValueError, match="is there already"):
        adopt_trial(project, settings, board, "ensemble", name="buyers")


def test_a_trial_of_a_model_is_named_by_its_families(project: Project) -> None:
    lake = Lake(Settings().lake_uri)
    lake.replace("raw/calls", calls())
    said = CliRunner().invoke(app, ["new", "model", "buyers", "--from", "raw/calls", "--target", "y"])
    assert said.exit_code == 0, said.output
    plan = plan_model(project, lake, "buyers", AutomlOptions(drop=("duration",)))
    assert (plan.model, plan.table, plan.metric, plan.split.kind) == (
        "buyers",
        "training_sets/buyers",
        "roc_auc",
        "time",
    )
    assert [column.name for column in plan.columns] == ["age", "job", "balance"]
    with pytest.raises(LookupError, match="training set of buyers has no column 'duratoin'; did you mean 'duration'"):
        plan_model(project, lake, "buyers", AutomlOptions(allow=("duratoin",)))
    adopt_trial(project, Settings(), leaderboard(plan), "best")
    spec = find_model(project, "buyers").spec
    assert spec.families == (f"{project.package}.defs.buyers.adopted_trial.AdoptedTrial",)
    declaration = project.defs / "buyers" / "defs.yaml"
    text = declaration.read_text()
    declaration.write_text(text.replace("  families: [", "  families:\n    - ").replace("Trial]", "Trial"))
    with pytest.raises(ValueError, match="write the families in one line"):
        adopt_trial(project, Settings(), leaderboard(plan), "best")
    declaration.write_text(text.replace("  families:", "  class_weights: balanced\n  families:"))
    with pytest.raises(ValueError, match=r"has class_weights in its defs\.yaml"):
        plan_model(project, lake, "buyers", AutomlOptions())
    with pytest.raises(LookupError, match="no model 'buyer'; did you mean 'buyers'"):
        plan_model(project, lake, "buyer", AutomlOptions())
