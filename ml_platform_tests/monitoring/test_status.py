"""What monitoring publishes for those who must not read the lake."""

from collections.abc import Callable
from datetime import timedelta

import polars as pl
import pytest

from ml_platform.monitoring import status
from ml_platform.monitoring.drift.detect import detect_drift
from ml_platform.monitoring.performance.measure import measure_performance
from ml_platform.monitoring.status import StatusUnreadable, read_status
from ml_platform_tests.monitoring.conftest import MODEL, SPEC, START, World, draw

Labels = Callable[[pl.DataFrame], None]


def detect(world: World, day: int | None = None) -> None:
    until = None if day is None else START + timedelta(days=day)
    detect_drift(world.lake, SPEC, world.store, world.settings, until=until)


def test_drift_and_performance_publish_what_they_found(world: World, labels: Labels) -> None:
    rows = draw(60, 7)
    labels(rows)
    world.score(rows.with_columns(pl.col("vibration") + 0.8))
    assert read_status(world.store, MODEL) is None
    detect(world)
    report = measure_performance(world.lake, SPEC, world.folder, world.store)
    found = read_status(world.store, MODEL)
    assert found is not None
    [drift] = found.drift
    assert (drift.verdict, drift.rows, drift.version) == ("drift", 700, 1)
    assert (drift.drifted, drift.judged, round(drift.drifted_importance, 6)) == (1, 3, 0.7)
    assert drift.worst[0].column == "vibration"
    assert drift.worst[0].severity == max(column.severity or 0 for column in drift.worst) > 1
    assert "1 of 3 features drifted" in drift.reason
    [performance] = found.performance
    assert (performance.metric, performance.value) == ("roc_auc", report.metrics["roc_auc"])
    assert performance.interval == report.interval
    assert (performance.rows, performance.holdout, performance.verdict) == (700, 0.85, report.verdict)


def test_windows_stand_in_order_the_same_one_once_and_the_oldest_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "KEPT", 3)
    world.score(draw(60, 12))
    for day in (70, 67, 70, 68, 71):
        detect(world, day)
    found = read_status(world.store, MODEL)
    assert found is not None
    assert [window.until for window in found.drift] == [START + timedelta(days=day) for day in (68, 70, 71)]
    assert {window.verdict for window in found.drift} == {"no drift"}


def test_too_few_rows_are_told_as_not_judged(world: World) -> None:
    world.score(draw(60, 1))
    detect(world)
    found = read_status(world.store, MODEL)
    assert found is not None
    assert [(window.verdict, window.rows) for window in found.drift] == [("not judged", 100)]


def test_a_damaged_document_is_named_with_what_to_do(world: World) -> None:
    world.score(draw(60, 7))
    world.store.status_path(MODEL).parent.mkdir()
    world.store.status_path(MODEL).write_text('{"model": 3}')
    with pytest.raises(StatusUnreadable, match=rf"{MODEL}\.json: not a status document .* delete it"):
        detect(world)
