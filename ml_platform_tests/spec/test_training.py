"""`training` in defs.yaml: what may be spread over workers, and how a mistake is told."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ml_platform.spec.training import DISTRIBUTED_CELLS, Training
from ml_platform.spec_yaml import load_spec
from ml_platform.yaml_documents import SpecError
from ml_platform_tests.test_spec_yaml import GOOD, VIEWS


def test_one_process_trains_unless_several_are_asked_for_and_the_set_is_large() -> None:
    assert not Training().distributes(10 * DISTRIBUTED_CELLS)
    assert Training(workers=2).distributes(DISTRIBUTED_CELLS)
    assert not Training(workers=2).distributes(DISTRIBUTED_CELLS - 1)
    assert Training(workers=2, executor="ray").distributes(1)
    assert not Training(workers=2, executor="local").distributes(10 * DISTRIBUTED_CELLS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"executor": "ray"}, "executor: ray wants workers: 2 or more"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"workers": 2, "cpus_per_worker": 0}, "greater than or equal to 1"),
        ({"workers": 2, "executor": "spark"}, "'auto', 'local' or 'ray'"),
        ({"worker": 2}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Training.model_validate(given)


@pytest.mark.parametrize("training", ["{workers: 2}", "{workers: 2, executor: ray}"])
def test_families_that_cannot_are_refused_with_file_and_line(training: str, tmp_path: Path) -> None:
    (tmp_path / "spine.sql").write_text("SELECT 1")
    path = tmp_path / "defs.yaml"
    families = "families: [lightgbm, logistic_regression, xgboost]"
    path.write_text(GOOD.replace("families: [logistic_regression]", families) + f"  training: {training}\n")
    with pytest.raises(SpecError) as raised:
        load_spec(path, VIEWS)
    assert str(raised.value) == (
        f"{path}:{len(GOOD.splitlines()) + 1}: training.workers: 2, but ['logistic_regression'] under `families` "
        "cannot be trained over several; of the engine's families can: lightgbm, xgboost. Leave the others out, or set "
        "executor: local"
    )


def test_workers_that_are_never_used_need_no_family_that_can() -> None:
    text = Training(workers=2, executor="local")
    assert not text.may_distribute
