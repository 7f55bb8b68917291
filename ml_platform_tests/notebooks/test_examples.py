"""Every example notebook runs as it is written, for a model of each task in a fresh project, and says what is so."""

from pathlib import Path

import pytest

from ml_platform.notebooks.examples import EXAMPLES
from ml_platform_tests.docs.reader import Block, Reader
from ml_platform_tests.new_model.rows import calls, readings

ROWS = {"binary": calls(1500).drop("duration"), "regression": readings(24 * 60)}
TARGET = {"binary": "y", "regression": "power"}
METRIC = {"binary": "roc_auc: own 0.", "regression": "rmse: own ", "multiclass": "accuracy: own "}
WINE = (
    "from sklearn.datasets import load_wine; frame = load_wine(as_frame=True).frame; "
    "frame.to_csv('mine.csv', index=False)"
)


def sh(reader: Reader, text: str) -> str:
    return reader.run(Block("sh", "", text))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_all_examples_run_for_a_model_that_a_table_made(reader: Reader, task: str) -> None:
    if task == "multiclass":
        sh(reader, f'python -c "{WINE}"')
    else:
        ROWS[task].write_csv(reader.project / "mine.csv")
    sh(reader, f"ml-platform new model mine --data mine.csv --target {TARGET.get(task, 'target')}")
    sh(reader, "ml-platform run mine")
    sh(reader, "ml-platform notebook new all mine")
    pages = {}
    for name in EXAMPLES:
        told = sh(reader, f"ml-platform notebook run notebooks/mine_{name}.py")
        pages[name] = Path(told.splitlines()[-1].removeprefix("page: ")).read_text()
    assert "mine version 1:" in pages["explore"]
    assert METRIC[task] in pages["train"]
    assert "logged as run" in pages["train"]
    assert "with it " in pages["feature"]
    assert "explanation" in pages["explain"]
    assert "mine version 1 serves" in pages["monitor"]
    listed = sh(reader, "ml-platform notebook list")
    assert listed.count("cells") == len(EXAMPLES)
