"""Notebooks as text: every cell is Python, nothing of the engine is imported, every kind of plan has its cells."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest

from ml_platform.automl import notebooks
from ml_platform.automl.documents import Decision, Entry, Leaderboard, Member, Plan, PlanColumn, SplitKind, SplitPlan
from ml_platform.automl.exploration_notebook import exploration_notebook
from ml_platform.automl.notebooks import execute_notebook, notebook_metric, write_notebook
from ml_platform.automl.show import leaderboard_lines, leaderboard_markdown, leaderboard_plot
from ml_platform.automl.store import latest_run, store_run, write_leaderboard
from ml_platform.automl.trial_notebook import RESULT_TAG, trial_notebook
from ml_platform.distribution import ExtraMissing
from ml_platform.spec.types import Task

AT = datetime(2024, 5, 1, tzinfo=UTC)
TREES = Member(trial="lightgbm-3", family="lightgbm", params={"n_estimators": 20, "num_leaves": 15}, weight=0.75)
LINES: dict[Task, Member] = {
    "binary": Member(trial="logistic_regression-0", family="logistic_regression", params={"C": 0.1}, weight=0.25),
    "multiclass": Member(trial="catboost-1", family="catboost", params={"iterations": 10}, weight=0.25),
    "regression": Member(trial="elastic_net-0", family="elastic_net", params={"alpha": 0.1}, weight=0.25),
}
METRIC: dict[Task, str] = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmsle"}


def entry(trial: str, members: tuple[Member, ...], validation: float) -> Entry:
    return Entry(
        trial=trial,
        members=members,
        validation=validation,
        holdout=0.7,
        lower=0.65,
        upper=0.75,
        fit_seconds=0.5,
        predict_us=2.0,
        size_bytes=2048,
        notebook=f"{trial}.ipynb",
    )


def board(task: Task, kind: SplitKind) -> Leaderboard:
    split = SplitPlan(kind=kind, validation=0.15, holdout=0.2)
    if kind == "time":
        split = SplitPlan(kind=kind, train_until=AT, validation_from=AT, validation_until=AT, holdout_from=AT)
    plan = Plan(
        name="rents",
        source="rents.csv",
        table="automl/rents",
        uri="/lake/automl/rents",
        version=4,
        rows=900,
        task=task,
        metric=METRIC[task],
        target="the label",
        positive="Yes" if task == "binary" else None,
        classes=("a", "b", "c") if task == "multiclass" else (),
        log_target=task == "regression",
        columns=(PlanColumn(name="size", kind="number"), PlanColumn(name="col our", kind="category")),
        sort_by=("at", "id"),
        time="at" if kind == "time" else None,
        group="owner" if kind == "group" else None,
        split=split,
        decisions=(Decision(what="split", value=kind, why="a | b", option="--split"),),
    )
    single = entry("lightgbm-3", (TREES.model_copy(update={"weight": 1.0}),), 0.71)
    blended = entry("ensemble", (TREES, LINES[task]), 0.72)
    return Leaderboard(
        plan=plan,
        started=AT,
        minutes=1.0,
        seconds=50.0,
        trials=12,
        families=("lightgbm",),
        higher_is_better=task != "regression",
        train_rows=600,
        validation_rows=100,
        holdout_rows=200,
        confidence=0.95,
        blocks="200 rows",
        entries=Leaderboard.ranked([single, blended], higher_is_better=task != "regression"),
        exploration="exploration.ipynb",
    )


@pytest.mark.parametrize(
    ("task", "kind"),
    [("binary", "stratified"), ("multiclass", "group"), ("regression", "time"), ("regression", "random")],
)
def test_every_cell_is_python_without_the_engine(task: Task, kind: SplitKind, tmp_path: Path) -> None:
    made = board(task, kind)
    texts = {one.notebook: trial_notebook(made, one) for one in made.entries}
    texts["exploration.ipynb"] = exploration_notebook(made.plan)
    for name, text in texts.items():
        write_notebook(text, tmp_path / name)
        cells = nbformat.read(tmp_path / name, as_version=4).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        for source in code:
            ast.parse(source)
        together = "\n".join(code)
        assert "import ml_platform" not in together
        assert "from ml_platform" not in together
        assert f"URI = '{made.plan.uri}'" in together
        tagged = [cell for cell in cells if RESULT_TAG in cell.metadata.get("tags", [])]
        assert len(tagged) == (name != "exploration.ipynb")


def test_a_notebook_that_was_not_run_has_no_metric(tmp_path: Path) -> None:
    made = board("binary", "stratified")
    write_notebook(trial_notebook(made, made.best), tmp_path / "trial.ipynb")
    with pytest.raises(ValueError, match="run the notebook first"):
        notebook_metric(tmp_path / "trial.ipynb")


@pytest.mark.slow
def test_a_notebook_is_run_in_a_kernel_of_this_python(tmp_path: Path) -> None:
    path = tmp_path / "sum.ipynb"
    write_notebook(f'# %%\nimport sys\n\n# %% tags=["{RESULT_TAG}"]\nlen(sys.executable) / 2\n', path)
    execute_notebook(path)
    import sys

    assert notebook_metric(path) == len(sys.executable) / 2


def test_the_leaderboard_is_kept_and_shown(tmp_path: Path) -> None:
    made = board("regression", "time")
    with pytest.raises(LookupError, match="no run of AutoML called 'rents'"):
        latest_run(tmp_path, "rents")
    first = store_run(tmp_path, "rents", AT, lambda folder: write_leaderboard(folder, made))
    assert latest_run(tmp_path, "rents") == (first, made)
    second = store_run(tmp_path, "rents", AT, lambda folder: write_leaderboard(folder, made))
    assert first != second
    shown = "\n".join(leaderboard_lines(made))
    assert "rmsle (lower is better)" in shown
    assert shown.index("lightgbm-3") < shown.index("ensemble")
    assert "| 1 | lightgbm-3 | 0.71000 | 0.70000 | 0.65000 to 0.75000 |" in leaderboard_markdown(made)
    assert leaderboard_plot(made).startswith(b"\x89PNG")
    assert made.entry("best") is made.best
    with pytest.raises(LookupError, match="no trial 'ridge-1'"):
        made.entry("ridge-1")


def test_a_run_that_is_not_whole_is_no_run_and_the_next_one_removes_it(tmp_path: Path) -> None:
    made = board("regression", "time")

    def write_half(folder: Path) -> None:
        (folder / "ridge-1.ipynb").write_text("{}")
        write_leaderboard(folder, made)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        store_run(tmp_path, "rents", AT, write_half)
    assert not (tmp_path / "automl" / "rents").exists()
    with pytest.raises(LookupError, match="there are: none"):
        latest_run(tmp_path, "rents")
    whole = store_run(tmp_path, "rents", AT, lambda folder: write_leaderboard(folder, made))
    assert [path.name for path in whole.iterdir()] == ["leaderboard.json"]
    assert not list((tmp_path / "automl" / ".unfinished").glob("*/run"))


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "LIBRARIES", ("jupytext", "no_such_library"))
    with pytest.raises(ExtraMissing, match=r"pip install 'dagster-ml-platform\[notebooks\]'"):
        notebooks.require_notebooks()
