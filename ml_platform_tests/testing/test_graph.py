"""The snapshot of the graph: written when asked for, and compared otherwise."""

import json
from pathlib import Path

import pytest

from ml_platform.testing import check_graph_snapshot
from ml_platform.testing.graph import VARIABLE
from ml_platform_tests.testing.shop_project import ShopProject


@pytest.fixture
def snapshot(project: ShopProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "graph_snapshot.json"
    monkeypatch.setenv(VARIABLE, "1")
    check_graph_snapshot(path)
    monkeypatch.delenv(VARIABLE)
    return path


def test_a_graph_equals_the_snapshot_that_was_written_of_it(snapshot: Path) -> None:
    check_graph_snapshot(snapshot)
    assets = json.loads(snapshot.read_text())["assets"]
    assert assets["features/shop_load"]["parents"] == ["raw/loads"]
    assert assets["features/shop_load"]["checks"]


def test_a_difference_is_shown_by_its_lines_and_leaves_the_snapshot_alone(snapshot: Path) -> None:
    written = json.loads(snapshot.read_text())
    written["assets"]["raw/gone"] = written["assets"]["raw/orders"]
    written["assets"]["features/shop_load"]["parents"] = ["raw/orders"]
    text = json.dumps(written, indent=2) + "\n"
    snapshot.write_text(text)
    with pytest.raises(AssertionError, match=f"{VARIABLE}=1") as caught:
        check_graph_snapshot(snapshot)
    lines = {line.strip() for line in str(caught.value).splitlines()}
    assert {'-    "raw/gone": {', '-        "raw/orders"', '+        "raw/loads"'} <= lines
    assert snapshot.read_text() == text


def test_a_missing_snapshot_is_no_success(project: ShopProject, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=rf"found no file {tmp_path}.*{VARIABLE}=1"):
        check_graph_snapshot(tmp_path / "graph_snapshot.json")
    assert not (tmp_path / "graph_snapshot.json").exists()
