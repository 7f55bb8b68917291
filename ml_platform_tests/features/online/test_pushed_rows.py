"""Pushed rows in the lake: beside the computed ones wherever a view is read, and never lost."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.features.catalogue.describe import describe_views
from ml_platform.features.incremental_spec import Incremental
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import latest_rows, publish_view
from ml_platform.features.online.push_log import Pushed, stream
from ml_platform.features.online.pushed_rows import (
    has_pushed,
    ingest_pushed,
    pushed_overlays,
    pushed_table,
    read_view,
    view_schema,
    view_tables,
)
from ml_platform.features.training_sets import notebook_api
from ml_platform.features.training_sets.build import feature_rows
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.training_sets.notebook_api import create_training_set
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureColumn, FeatureView
from ml_platform.lake.query import sql
from ml_platform.lake.storage.maintenance import maintain
from ml_platform.lake.storage.tables import Lake
from ml_platform.segment_log.segments import SegmentLog
from ml_platform.settings import Settings
from ml_platform.spec.model import Lookup
from ml_platform_tests.killed_ingest import kill_an_ingest
from ml_platform_tests.toy_world import START, Shops, push_loads

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(hours: float) -> datetime:
    return NOON + hours * HOUR


def load_view(**changes: Any) -> FeatureView:
    declared: dict[str, Any] = {
        "name": "shop_load",
        "description": "How busy a shop is.",
        "owner": "shops@example.com",
        "entity": ("shop",),
        "columns": {
            "waiting": FeatureColumn(type="integer", description="Orders waiting."),
            "mood": FeatureColumn(type="string", description="What the manager says."),
        },
        "sql": "SELECT shop, seen_at AS event_time, waiting, mood FROM raw.loads",
    }
    return FeatureView.model_validate({**declared, **changes})


def source(lake: Lake, *rows: tuple[str, datetime, int]) -> None:
    frame = pl.DataFrame(
        rows, schema={"shop": pl.String, "seen_at": pl.Datetime("us", "UTC"), "waiting": pl.Int64}, orient="row"
    )
    lake.append("raw/loads", frame.with_columns(mood=pl.lit("computed"), written=pl.lit(at(0))))


def push(
    settings: Settings, view: FeatureView, *rows: tuple[str, datetime, int | None], at_: datetime | None = None
) -> None:
    """Log rows as serving does; each call is a request."""
    log = SegmentLog(settings.push_log_dir, "push log")
    log.append(stream(view.name, view.hash), [pushed(view, *rows, at_=at_)])
    log.close()


def pushed(view: FeatureView, *rows: tuple[str, datetime, int | None], at_: datetime | None = None) -> Pushed:
    return Pushed(
        request_id="r",
        view=view.name,
        view_hash=view.hash,
        time=at_ or datetime.now(UTC),
        caller=None,
        types={"shop": "string", view.event_time: "timestamp", "waiting": "integer", "mood": "string"},
        rows=[(shop, int(instant.timestamp() * 1_000_000), waiting, "pushed") for shop, instant, waiting in rows],
    )


def ingest(lake: Lake, settings: Settings, view: FeatureView) -> int:
    return sum(report.rows for report in ingest_pushed(lake, settings.push_log_dir, view.name))


def rows_of(lake: Lake, view: FeatureView) -> list[tuple[Any, ...]]:
    rows = read_view(lake, view)
    return rows.sort("shop", "event_time").select("shop", "event_time", "waiting", "mood").collect().rows()


@pytest.fixture
def view(lake: Lake) -> FeatureView:
    """A view that was computed from two rows."""
    source(lake, ("A", at(0), 1), ("B", at(0), 2))
    found = load_view()
    compute_view(lake, found)
    return found


def test_pushed_rows_stand_beside_computed_ones_and_win_a_tie(
    lake: Lake, settings: Settings, view: FeatureView
) -> None:
    assert view_tables(lake, view) == (view.table,)
    push(settings, view, ("A", at(1), 10), ("A", at(1), 11), ("B", at(0), None))
    push(settings, view, ("A", at(2), 12))
    assert has_pushed(settings.push_log_dir, view.name)
    assert ingest(lake, settings, view) == 4
    assert not has_pushed(settings.push_log_dir, view.name)
    assert rows_of(lake, view) == [
        ("A", at(0), 1, "computed"),
        ("A", at(1), 11, "pushed"),
        ("A", at(2), 12, "pushed"),
        ("B", at(0), None, "pushed"),
    ]
    assert latest_rows(lake, view).sort("shop").rows() == [("A", at(2), 12, "pushed"), ("B", at(0), None, "pushed")]


def same_in_sql(lake: Lake, view: FeatureView) -> int:
    """Compare what SQL sees with `read_view` and give the number of rows."""
    with_pushed = pushed_overlays(lake, lambda: {view.name: view})
    found = sql.query(lake, f"SELECT * FROM features.{view.name} ORDER BY ALL", overlays=with_pushed)
    wanted = read_view(lake, view).collect()
    assert_frame_equal(found, wanted.select(found.columns), check_row_order=False)
    assert sql.query(lake, f"SELECT * FROM features.{view.name}").height == lake.read(view.table).collect().height
    return found.height


@pytest.mark.parametrize("changes", [{}, {"created": "written"}, {"incremental": True}])
def test_sql_sees_the_same_rows(lake: Lake, settings: Settings, changes: dict[str, Any]) -> None:
    source(lake, ("A", at(0), 1), ("B", at(0), 2))
    if "created" in changes:
        changes = changes | {"sql": load_view().sql.replace("SELECT", "SELECT written,")}
    if "incremental" in changes:
        changes = {"incremental": Incremental.model_validate({"look_back": HOUR, "times": {"raw/loads": "seen_at"}})}
    view = load_view(**changes)
    compute_view(lake, view)
    assert same_in_sql(lake, view) == 2
    push(settings, view, ("A", at(1), 10), ("A", at(1), 11), ("B", at(0), None))
    push(settings, view, ("A", at(2), 12), ("A", at(1), 9), at_=at(-9))
    ingest(lake, settings, view)
    assert same_in_sql(lake, view) == (6 if view.created else 4)


def test_sql_sees_no_row_that_was_pushed_to_another_definition(
    lake: Lake, settings: Settings, view: FeatureView
) -> None:
    push(settings, view, ("A", at(1), 10))
    ingest(lake, settings, view)
    assert same_in_sql(lake, view) == 3
    changed = load_view(sql=f"{view.sql} WHERE waiting > 0")
    with_pushed = pushed_overlays(lake, lambda: {view.name: changed})
    select = "SELECT shop FROM features.shop_load ORDER BY ALL"
    assert sql.query(lake, select, overlays=with_pushed)["shop"].to_list() == ["A", "B"], "the table is of the old one"
    compute_view(lake, changed)
    assert sql.query(lake, select, overlays=with_pushed)["shop"].to_list() == ["A", "B"]
    assert sql.query(lake, select, versions={view.table: 0}, overlays=with_pushed).height == 2


def test_the_command_and_a_notebook_see_pushed_rows(
    lake: Lake, settings: Settings, view: FeatureView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_api, "_project_views", lambda: load_views(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    (tmp_path / "broken.sql").write_text("no view")
    select = "SELECT count(*) AS rows FROM features.shop_load"
    assert notebook_api.open_lake().sql(select).item() == 2, "files of views are read only when rows were pushed"
    (tmp_path / "broken.sql").rename(tmp_path / "shop_load.sql").write_text(
        f"/*\ndescription: x\nowner: a@b\nentity: [shop]\ncolumns:\n  waiting: {{type: integer, description: W.}}\n"
        f"  mood: {{type: string, description: M.}}\n*/\n{view.sql}"
    )
    push(settings, view, ("A", at(1), 10))
    ingest(lake, settings, view)
    assert notebook_api.open_lake().sql(select).item() == 3
    assert notebook_api.open_lake().sql(select, versions={view.table: 0}).item() == 2
    shown = CliRunner().invoke(app, ["sql", select, "--format", "json"])
    assert json.loads(shown.stdout) == [{"rows": 3}]


def test_a_spine_of_a_training_set_sees_pushed_rows(lake: Lake, settings: Settings, view: FeatureView) -> None:
    push(settings, view, ("A", at(1), 10))
    ingest(lake, settings, view)
    spine = "SELECT shop, event_time, waiting FROM features.shop_load"
    views = {view.name: view}
    found = create_training_set(spine, [view.name], "waiting", lake=lake, views=views)
    assert (found.frame.height, set(found.tables)) == (3, {view.table, pushed_table(view)})
    push(settings, view, ("A", at(2), 11))
    ingest(lake, settings, view)
    again = create_training_set(spine, [view.name], "waiting", lake=lake, views=views, versions=found.tables)
    assert again.frame.equals(found.frame)


def test_of_rows_pushed_for_one_instant_the_last_counts_whichever_came_first_into_the_lake(
    lake: Lake, settings: Settings, view: FeatureView
) -> None:
    push(settings, view, ("A", at(1), 2), at_=at(10))
    ingest(lake, settings, view)
    push(settings, view, ("A", at(1), 1), at_=at(9))
    ingest(lake, settings, view)
    assert rows_of(lake, view)[1] == ("A", at(1), 2, "pushed")


def test_between_equal_event_times_the_latest_created_wins(lake: Lake, settings: Settings) -> None:
    source(lake, ("A", at(0), 1), ("B", at(0), 2))
    sql = "SELECT shop, seen_at AS event_time, written AS known_at, waiting, mood FROM raw.loads"
    view = load_view(created="known_at", sql=sql)  # both rows were written at noon
    compute_view(lake, view)
    push(settings, view, ("A", at(0), 10), at_=at(5))
    push(settings, view, ("B", at(0), 20), at_=at(-5))
    ingest(lake, settings, view)
    newest = latest_rows(lake, view).sort("shop").select("shop", "waiting").rows()
    assert newest == [("A", 10), ("B", 2)]
    spine = pl.DataFrame({"shop": ["A", "A", "B"], "event_time": [at(4), at(6), at(6)], "y": [0, 1, 0]})
    asked = Lookup(view=view.name, features=("waiting",), knowledge_time=True)
    found = create_training_set(spine, [asked], "y", lake=lake, views={view.name: view})
    assert found.frame["shop_load__waiting"].to_list() == [1, 10, 2]  # before 17:00 nobody knew of A's push


def test_computing_again_keeps_pushed_rows(lake: Lake, settings: Settings, view: FeatureView) -> None:
    push(settings, view, ("A", at(1), 10), ("C", at(1), 30))
    ingest(lake, settings, view)
    source(lake, ("B", at(3), 3))
    compute_view(lake, view)
    assert [(shop, waiting) for shop, _, waiting, _ in rows_of(lake, view)] == [
        ("A", 1), ("A", 10), ("B", 2), ("B", 3), ("C", 30),
    ]  # fmt: skip
    maintain(lake, retention=timedelta(0))
    assert len(rows_of(lake, view)) == 5


def test_computing_changed_days_alone_keeps_pushed_rows(lake: Lake, settings: Settings) -> None:
    source(lake, ("A", at(0), 1), ("A", at(48), 2))
    view = load_view(incremental=Incremental(look_back="1 hour", times={"raw/loads": "seen_at"}))
    compute_view(lake, view)
    push(settings, view, ("A", at(1), 10), ("A", at(49), 20))
    ingest(lake, settings, view)
    source(lake, ("A", at(50), 3))
    assert compute_view(lake, view).spans
    assert [waiting for _, _, waiting, _ in rows_of(lake, view)] == [1, 10, 2, 20, 3]


def test_a_training_set_has_what_was_pushed_by_its_rows_instants_and_pins_it(
    lake: Lake, settings: Settings, view: FeatureView
) -> None:
    spine = pl.DataFrame({"shop": ["A", "A"], "event_time": [at(0.9), at(1.1)], "y": [0, 1]})
    views = {view.name: view}

    def made(versions: dict[str, int] | None = None) -> Any:
        return create_training_set(spine, ["shop_load"], "y", lake=lake, views=views, versions=versions)

    before = made()
    push(settings, view, ("A", at(1), 10))
    ingest(lake, settings, view)
    first = made()
    assert before.frame["shop_load__waiting"].to_list() == [1, 1]
    assert first.frame["shop_load__waiting"].to_list() == [1, 10]
    assert first.tables == {view.table: 0, pushed_table(view): 0}
    push(settings, view, ("A", at(1.05), 11))
    ingest(lake, settings, view)
    assert made().frame["shop_load__waiting"].to_list() == [1, 11]
    assert made().tables == {view.table: 0, pushed_table(view): 1}
    assert made(before.tables).frame.equals(before.frame)  # as it was before anything was pushed
    assert made(first.tables).frame.equals(first.frame)


def test_a_models_training_set_names_the_pushed_rows_and_batch_scoring_reads_them(shops: Shops) -> None:
    view, at = shops.views["shop_load"], START + timedelta(days=30)
    before = shops.training_set()
    push_loads(shops, at, 77.0)
    ref = shops.training_set()
    assert ref.tables == {**before.tables, pushed_table(view): 0}
    of_pushed = pl.col("shop_load__load") == 77.0
    found = shops.lake.read(ref.table, version=ref.version).filter(of_pushed).collect()
    assert 0 < found.height < ref.rows
    assert found["ordered_at"].is_between(at, at + (view.ttl or timedelta(0))).all()
    assert shops.lake.read(ref.table, version=before.version).filter(of_pushed).collect().is_empty()
    definitions = FeatureDefinitions.of_spec(shops.spec, shops.folder)
    window = feature_rows(shops.lake, shops.spec, shops.folder, shops.views, definitions, at, at + timedelta(hours=6))
    assert set(window["shop_load__mood"]) == {"pushed"}


def test_a_changed_definition_leaves_what_was_pushed_to_the_old_one(
    lake: Lake, settings: Settings, view: FeatureView
) -> None:
    push(settings, view, ("A", at(1), 10))
    changed = load_view(sql=view.sql.replace("waiting,", "waiting * 2 AS waiting,"))
    compute_view(lake, changed)
    push(settings, changed, ("B", at(1), 20))
    assert ingest(lake, settings, changed) == 2
    assert rows_of(lake, changed) == [
        ("A", at(0), 2, "computed"),
        ("B", at(0), 4, "computed"),
        ("B", at(1), 20, "pushed"),
    ]
    compute_view(lake, view)  # and back
    assert rows_of(lake, view)[1] == ("A", at(1), 10, "pushed")


def test_publishing_brings_pushed_rows_into_an_empty_store(lake: Lake, settings: Settings, view: FeatureView) -> None:
    push(settings, view, ("A", at(1), 10))
    ingest(lake, settings, view)
    with open_online_store(settings.online_uri) as store:
        assert publish_view(lake, view, store).newest == at(1)
        (row,) = store.read([("shop_load", ("A",))])
        assert row is not None
        assert (row.event_time, row.values) == (at(1), {"waiting": 10, "mood": "pushed"})
    [state] = describe_views(lake, {view.name: view}, [])
    assert (state.rows, state.newest) == (3, at(1))


def test_the_schema_tells_entity_types_and_the_bounds_of_small_integers(view: FeatureView) -> None:
    two = load_view(entity=("shop", "till"))
    found = view_schema(two, pl.Schema({"shop": pl.String(), "till": pl.Int16()}))
    assert found is not None
    shop, till, event_time, waiting, _ = found.fields
    assert (shop.type, till.type, till.minimum, till.maximum) == ("string", "integer", -32768, 32767)
    assert (event_time.name, event_time.type) == ("event_time", "timestamp")
    assert (waiting.type, waiting.description) == ("integer", "Orders waiting.")
    assert view_schema(view, pl.Schema({"shop": pl.Date()})) is None


def test_a_torn_line_is_counted_and_the_rest_goes_on(lake: Lake, settings: Settings, view: FeatureView) -> None:
    push(settings, view, ("A", at(1), 10))
    [path] = settings.push_log_dir.rglob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"request_id":"r2","view":"sh')
    [report] = ingest_pushed(lake, settings.push_log_dir, view.name)
    assert (report.rows, report.torn, report.deleted) == (1, 1, 1)


def kill_an_ingest_of_pushes(settings: Settings, view: str, commits: int) -> None:
    load = "from ml_platform.features.online.pushed_rows import ingest_pushed"
    kill_an_ingest(settings, f"{load}\ningest_pushed(lake, settings.push_log_dir, {view!r})", commits)


def test_an_ingest_killed_with_9_loses_and_doubles_nothing(lake: Lake, settings: Settings, view: FeatureView) -> None:
    log = SegmentLog(settings.push_log_dir, "push log", segment_bytes=10_000)
    for number in range(150):
        log.append(stream(view.name, view.hash), [pushed(view, ("A", at(number), number))])
    for commits in (0, 3):
        kill_an_ingest_of_pushes(settings, view.name, commits)
    log.close()
    ingest(lake, settings, view)
    rows = lake.read(pushed_table(view)).collect()
    assert sorted(rows["waiting"].to_list()) == list(range(150))
    assert list(settings.push_log_dir.rglob("*.jsonl")) == []
