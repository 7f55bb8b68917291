"""Models that serve what they trained, and models whose server answers something else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform.testing import SampleHome, check_model_serves_what_it_trained, sample_home
from ml_platform_tests.testing.shop_project import ShopProject
from ml_platform_tests.toy_world import REQUEST_FEATURES

Home = Callable[..., SampleHome]


@pytest.fixture(scope="module")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without any run, which takes longer to make than a model to train."""
    settings = Settings(home=tmp_path_factory.mktemp("registry"))
    assert Tracker(settings).client.search_registered_models() == []
    return settings.home / "mlflow.db"


@pytest.fixture
def make_home(empty_registry: Path, tmp_path: Path) -> Home:
    def make() -> SampleHome:
        (tmp_path / "home").mkdir()
        shutil.copy(empty_registry, tmp_path / "home")
        return sample_home(tmp_path / "home")

    return make


MODELS: dict[str, dict[str, Any]] = {
    "binary": {},
    "multiclass": {"name": "order_outcome", "task": "multiclass", "target": "outcome", "spine": "outcome.sql"},
    "regression": {
        "name": "order_minutes", "task": "regression", "target": "minutes", "spine": "minutes.sql",
        "families": ["ridge", "lightgbm"],
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_a_model_serves_what_it_trained(project: ShopProject, make_home: Home, changes: dict[str, Any]) -> None:
    project.write_model(**changes)
    check_model_serves_what_it_trained(changes.get("name", "order_late"), make_home())


def test_a_model_that_is_asked_about_now_serves_what_it_trained(project: ShopProject, make_home: Home) -> None:
    """Its requests name no instant: what was known of the shops then is too old by now."""
    inputs = [
        {"name": "shop", "type": "string"},
        {"name": "weight", "type": "number", "required": False, "default": 12.5},
    ]
    features = "REQUEST_FEATURES = {}\n"
    project.write_model(features, inputs=inputs)
    check_model_serves_what_it_trained("order_late", make_home())


HOOKS = """
from ml_platform.serving.app import create_app
from ml_platform.serving.prediction.hooks import Hooks

hooks = Hooks()


@hooks.before("order_late")
def in_pounds(rows, request):
    return [{**row, "weight": None if row["weight"] is None else row["weight"] * 2.2} for row in rows]


app = create_app(hooks=hooks)
"""


def test_a_hook_that_changes_a_row_is_told_with_the_features_by_which_it_does(
    project: ShopProject, make_home: Home
) -> None:
    project.write_model()
    project.write_app(HOOKS)
    with pytest.raises(AssertionError, match="scores of the trained model") as caught:
        check_model_serves_what_it_trained("order_late", make_home())
    assert "\n  weight: offline " in str(caught.value)
    assert "shop_load__load" not in str(caught.value)


def test_a_request_feature_that_depends_on_more_than_the_request_is_told(project: ShopProject, make_home: Home) -> None:
    """It is another one whenever the file is read, so that the bundle has another than what training is made of."""
    counted = (
        "from pathlib import Path\n"
        "_FILE = Path(__file__).with_suffix('.count')\n"
        "_READ = len(_FILE.read_text()) if _FILE.exists() else 0\n"
        "_FILE.write_text('x' * (_READ + 1))\n"
    )
    features = counted + REQUEST_FEATURES.replace('pl.col("weight") > 20', 'pl.col("weight") > 10 + _READ')
    project.write_model(features)
    with pytest.raises(AssertionError, match="scores of the trained model") as caught:
        check_model_serves_what_it_trained("order_late", make_home())
    assert "\n  heavy: offline " in str(caught.value)


def test_a_server_that_does_not_start_is_told_with_its_last_lines(project: ShopProject, make_home: Home) -> None:
    project.write_model()
    project.write_app("raise RuntimeError('no such luck')\n")
    with pytest.raises(AssertionError, match=r"(?s)found that it ended.*no such luck"):
        check_model_serves_what_it_trained("order_late", make_home())


def test_a_model_that_cannot_be_trained_is_told_with_the_engines_reason(project: ShopProject, make_home: Home) -> None:
    project.write_model()
    spine = project.defs / "order_late" / "late.sql"
    spine.write_text(spine.read_text().replace("late FROM", "true AS late FROM"))
    with pytest.raises(AssertionError, match=r"to be trained on a slice of the sample; found ValueError: .*same label"):
        check_model_serves_what_it_trained("order_late", make_home())


def test_a_model_without_labels_in_the_sample_is_no_success(project: ShopProject, make_home: Home) -> None:
    project.write_model()
    spine = project.defs / "order_late" / "late.sql"
    spine.write_text(spine.read_text().replace("raw.orders", "raw.orders WHERE weight < -1"))
    with pytest.raises(AssertionError, match=r"found ValueError: wanted rows of late\.sql with a label, found none"):
        check_model_serves_what_it_trained("order_late", make_home())


def test_an_unknown_model_is_told_with_those_that_there_are(project: ShopProject, make_home: Home) -> None:
    project.write_model()
    with pytest.raises(AssertionError, match=r"model 'late_order' .* it has order_late"):
        check_model_serves_what_it_trained("late_order", make_home())
