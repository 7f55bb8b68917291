from datetime import date
from pathlib import Path

import polars as pl
import pytest

from ml_platform.inference import ingest_log as module
from ml_platform.inference.ingest_log import ingest_log
from ml_platform.inference.log import InferenceLog
from ml_platform.inference.recorded_columns import of_features
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Feature
from ml_platform.segment_log import ingest
from ml_platform.settings import Settings
from ml_platform_tests.inference.test_log import record
from ml_platform_tests.killed_ingest import kill_an_ingest

TABLE = "inference_log/flight_delay"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake_uri)


def ids(lake: Lake) -> list[int]:
    return sorted(int(value) for value in lake.read(TABLE).select("id").collect()["id"])


def test_records_become_typed_rows_with_flat_feature_columns(settings: Settings, lake: Lake) -> None:
    log = InferenceLog(settings.inference_log_dir)
    features = {"carrier": "UA", "distance": 229, "origin_weather__temp": None, "night": True}
    log.append("flight_delay", [record(1, features=features, inputs={"carrier": "UA", "distance": 229})])
    report = ingest_log(lake, settings)["flight_delay"]
    assert (report.rows, report.segments, report.deleted, report.torn) == (1, 1, 0, 0)
    row = lake.read(TABLE).collect().row(0, named=True)
    assert row["inputs"] == '{"carrier":"UA","distance":229}'
    assert (row["carrier"], row["distance"], row["night"], row["date"]) == ("UA", 229.0, 1.0, date(2013, 7, 1))
    assert (row["score"], row["prediction"], row["model_version"]) == (0.001, False, 1)
    assert lake.schema(TABLE)["as_of"] == pl.Datetime("us", "UTC")
    log.close()


def test_each_record_arrives_once_however_often_the_ingest_runs(settings: Settings, lake: Lake) -> None:
    log = InferenceLog(settings.inference_log_dir, segment_bytes=2_000)
    for number in range(40):
        log.append("flight_delay", [record(number)])
        if number % 10 == 0:
            ingest_log(lake, settings)
    ingest_log(lake, settings)
    assert ingest_log(lake, settings)["flight_delay"].rows == 0
    assert ids(lake) == list(range(40))
    log.close()


def test_a_segment_is_deleted_only_after_its_writer_is_gone(settings: Settings, lake: Lake) -> None:
    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(1)])
    ingest_log(lake, settings)
    assert len(list(settings.inference_log_dir.glob("*/*.jsonl"))) == 1
    log.append("flight_delay", [record(2)])
    log.close()
    assert ingest_log(lake, settings)["flight_delay"].deleted == 1
    assert list(settings.inference_log_dir.glob("*/*.jsonl")) == []
    assert ids(lake) == [1, 2]


def test_a_torn_last_line_is_counted_and_the_rest_goes_on(settings: Settings, lake: Lake) -> None:
    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(1)])
    log.close()
    [path] = settings.inference_log_dir.glob("*/*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"request_id":"r2","row":0,"id"')
    report = ingest_log(lake, settings)["flight_delay"]
    assert (report.rows, report.torn, report.deleted) == (1, 1, 1)
    assert ids(lake) == [1]


def test_a_half_written_line_of_a_live_worker_waits_for_the_next_run(settings: Settings, lake: Lake) -> None:
    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(1), record(2)])
    [path] = settings.inference_log_dir.glob("*/*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert ingest_log(lake, settings)["flight_delay"].rows == 1
    path.write_bytes(whole)
    assert ingest_log(lake, settings)["flight_delay"].rows == 1
    assert ids(lake) == [1, 2]
    log.close()


def test_a_run_takes_what_is_there_when_it_starts_and_does_not_follow_a_busy_writer(
    settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(1)])
    parse = module._parse

    def parse_while_writing(chunk: bytes) -> object:
        log.append("flight_delay", [record(2)])
        return parse(chunk)

    monkeypatch.setattr(module, "_parse", parse_while_writing)
    assert ingest_log(lake, settings)["flight_delay"].rows == 1
    monkeypatch.undo()
    assert ingest_log(lake, settings)["flight_delay"].rows == 1
    assert ids(lake) == [1, 2]
    log.close()


def test_small_chunks_commit_one_by_one_and_add_up(
    settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "CHUNK_BYTES", 700)
    log = InferenceLog(settings.inference_log_dir)
    for number in range(10):
        log.append("flight_delay", [record(number)])
    log.close()
    report = ingest_log(lake, settings)["flight_delay"]
    assert report.rows == 10
    assert report.version is not None
    assert report.version > 2
    assert ids(lake) == list(range(10))


def test_a_feature_that_appears_later_is_null_before(settings: Settings, lake: Lake) -> None:
    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(1, features={"carrier": "UA"})])
    ingest_log(lake, settings)
    log.append("flight_delay", [record(2, features={"carrier": "AA", "hour": 7})])
    ingest_log(lake, settings)
    rows = lake.read(TABLE).sort("id").select("carrier", "hour").collect().rows()
    assert rows == [("UA", None), ("AA", 7.0)]
    log.close()


def test_a_feature_that_turns_from_number_to_category_and_back_keeps_both(settings: Settings, lake: Lake) -> None:
    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(1, features={"zip": 12345, "gate": "A"})])
    ingest_log(lake, settings)
    log.append("flight_delay", [record(2, features={"zip": "01234", "gate": 7})])
    log.append("flight_delay", [record(3, features={"zip": 5, "gate": "B", "new": "x"})])
    log.append("flight_delay", [record(4, features={"zip": None, "gate": None, "new": 1.5})])
    ingest_log(lake, settings)
    names = ["zip", "zip__as_text", "gate", "gate__as_number", "new", "new__as_number"]
    rows = lake.read(TABLE).sort("id").select(names).collect()
    assert rows.rows() == [
        (12345.0, None, "A", None, None, None),
        (None, "01234", None, 7.0, None, None),
        (5.0, None, "B", None, "x", None),
        (None, None, None, None, None, 1.5),
    ]
    as_text = of_features(rows, [Feature(name="zip", kind="categorical", source="input")])
    assert as_text["zip"].to_list() == [None, "01234", None, None]
    log.close()


@pytest.mark.parametrize("predictions", [(True, "late"), ("late", 3), (0.5, True), (3, 0.5)])
def test_predictions_of_another_kind_stop_nothing(settings: Settings, lake: Lake, predictions: tuple) -> None:
    log = InferenceLog(settings.inference_log_dir)
    for number, prediction in enumerate(predictions):
        one = record(number)
        one.prediction = prediction
        log.append("flight_delay", [one])
        ingest_log(lake, settings)
    kept = lake.read(TABLE).sort("id").collect().select(pl.col("^prediction.*$"))
    found = [next(value for value in row if value is not None) for row in kept.rows()]
    assert found == [str(one) if type(one) is int else one for one in predictions]
    log.close()


@pytest.mark.slow
def test_an_ingest_killed_with_9_at_any_moment_loses_and_doubles_nothing(settings: Settings, lake: Lake) -> None:
    log = InferenceLog(settings.inference_log_dir, segment_bytes=20_000)
    for number in range(300):
        log.append("flight_delay", [record(number)])
    call = "from ml_platform.inference.ingest_log import ingest_log\ningest_log(lake, settings)"
    for commits in (0, 1, 2, 5, 9):
        kill_an_ingest(settings, call, commits)
    log.close()
    ingest_log(lake, settings)
    assert ids(lake) == list(range(300))
    assert list(settings.inference_log_dir.glob("*/*.jsonl")) == []
