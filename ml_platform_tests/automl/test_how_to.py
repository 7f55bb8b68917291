"""The how-to works as it stands, in a fresh project, and notebooks compute the leaderboard's metric to the last bit."""

import json

import pytest

from ml_platform_tests.docs.reader import SECOND_TERMINAL, Block, Reader, blocks
from ml_platform_tests.new_model.rows import calls
from ml_platform_tests.paths import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "how-to" / "models" / "automl.md"


@pytest.mark.slow
def test_the_how_to_ends_with_a_model_that_answers(reader: Reader) -> None:
    calls(1500).drop("duration").write_csv(reader.project / "calls.csv")
    said = ""
    for block in blocks(PAGE):
        said += reader.run(Block(block.language, block.title, block.text.replace("--minutes 5", "--minutes 0.1")))
    assert "split: stratified" in said
    assert "roc_auc (higher is better)" in said
    assert "same as on the leaderboard" in said
    assert "another as on the leaderboard" not in said
    assert "The gate released version 1 of calls:" in said
    shown = reader.run(Block("sh", "", "ml-platform automl calls --show"))
    for family in ("logistic_regression", "xgboost"):
        [trial] = [line.split()[1] for line in shown.splitlines() if f" {family}-" in line and "(" not in line][:1]
        assert ", the same as" in reader.run(Block("sh", "", f"ml-platform automl calls --execute {trial}"))
    reader.start(Block("sh", SECOND_TERMINAL, "python -m ml_platform.serving"))
    [curl] = [line for line in said.splitlines() if line.startswith("curl ")]
    assert json.loads(reader.run(Block("sh", "", curl)))["model"] == "calls"
