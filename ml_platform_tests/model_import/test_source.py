"""Models of MLflow: the file is found by MLmodel and told by its bytes; nothing of the model is run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.source import Source, open_source
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform_tests.model_import.test_file_kinds import Touches

TREE = b"tree\nversion=v4\n"


@pytest.fixture
def opened(tmp_path: Path, settings: Settings) -> Callable[..., Source]:
    """Open the folder of an MLflow model with these flavors and files."""

    def opens(flavors: dict[str, Any], files: dict[str, bytes], *, trust: bool = False, **keys: Any) -> Source:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, **keys}))
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return open_source(str(folder), flavor="auto", trust=trust, tracker=Tracker(settings), folder=tmp_path)

    return opens


def test_the_data_file_and_the_signature_are_found(opened: Callable[..., Source]) -> None:
    columns = [{"name": "weight", "type": "double"}, {"name": "load", "type": "double"}]
    source = opened(
        {"lightgbm": {"data": "model.lgb"}, "python_function": {"data": "model.lgb"}},
        {"model.lgb": TREE},
        signature={"inputs": json.dumps(columns)},
        run_id="abc",
    )
    assert (source.kind.flavor, source.inputs, source.path.name) == ("lightgbm", ("weight", "load"), "model.lgb")
    assert source.origin == "MLflow run abc"
    assert len(source.digest) == 64


def test_custom_code_is_never_run(opened: Callable[..., Source]) -> None:
    with pytest.raises(ImportRefused, match=r"custom Python code .*loader my\.code.* never run"):
        opened({"python_function": {"loader_module": "my.code"}}, {}, trust=True)


def test_a_flavor_that_unpickles_wants_trust(opened: Callable[..., Source], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    flavors = {"sklearn": {"pickled_model": "model.pkl"}}
    with pytest.raises(ImportRefused, match=r"\(model\.pkl\) is pickle or joblib.*Nothing was loaded"):
        opened(flavors, {"model.pkl": pickle.dumps(Touches(ran))})
    assert not ran.exists()


def test_a_file_outside_of_the_model_is_refused(opened: Callable[..., Source], tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(TREE)
    with pytest.raises(ImportRefused, match="outside of the model's folder"):
        opened({"lightgbm": {"data": "../other"}}, {})


@pytest.mark.parametrize(
    ("flavors", "keys", "message"),
    [
        ({"lightgbm": {"data": "gone"}}, {}, "the file of its flavor lightgbm is missing"),
        ({"lightgbm": {"data": "model.lgb"}}, {"signature": {"inputs": "[{"}}, "its signature cannot be read"),
    ],
)
def test_what_is_incomplete_is_refused(
    opened: Callable[..., Source], flavors: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportRefused, match=message):
        opened(flavors, {"model.lgb": TREE}, **keys)
