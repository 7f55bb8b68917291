"""Pictures of recorded drift and performance."""

from datetime import UTC, datetime, timedelta

import polars as pl

from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.trends import DRIFT_TABLE, drift_heat_map, drift_history, drift_plots, performance_plots

FIRST = datetime(2013, 4, 7, tzinfo=UTC)


def history(windows: int, features: int) -> pl.DataFrame:
    names = ["(prediction)", *(f"feature_{number}" for number in range(features))]
    return pl.DataFrame(
        [
            {
                "model": "m",
                "run_at": FIRST,
                "window_until": FIRST + timedelta(days=7 * week),
                "column": name,
                "severity": None if number == 3 else 0.2 * week,
                "drifted": week > 5,
                "importance": 1 / (number + 1),
            }
            for week in range(windows)
            for number, name in enumerate(names)
        ]
    )


def test_heat_map_of_many_windows_stays_small() -> None:
    picture = drift_heat_map(history(80, 40))
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 200_000


def test_heat_map_of_one_window() -> None:
    assert drift_heat_map(history(1, 2)).startswith(b"\x89PNG")


def test_of_a_window_the_newest_run_counts(lake: Lake) -> None:
    rows = history(2, 1)
    lake.append(DRIFT_TABLE, rows)
    lake.append(DRIFT_TABLE, rows.with_columns(run_at=pl.lit(FIRST + timedelta(days=99)), severity=pl.lit(1.5)))
    lake.append(DRIFT_TABLE, rows.with_columns(model=pl.lit("another")))
    found = drift_history(lake, "m")
    assert found["severity"].to_list() == [1.5] * 4
    assert found["model"].unique().to_list() == ["m"]


def test_nothing_recorded_gives_no_picture(lake: Lake) -> None:
    assert drift_plots(lake, "m") == {}
    assert performance_plots(lake, "m", "roc_auc") == {}
