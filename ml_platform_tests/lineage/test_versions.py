"""What serves, in the graph and by its manifest: versions, what a dropped column breaks, the rows behind a version."""

import json
from pathlib import Path

import msgspec
import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.catalogue import lineage_cli as cli
from ml_platform.lake.query.sql import query
from ml_platform.lineage.graph import Node
from ml_platform.lineage.impact import CHECKS, impact_of
from ml_platform.lineage.objects import lineage_of
from ml_platform.lineage.project_graph import Declared, build_lineage
from ml_platform.lineage.store import lineage_path, read_document, write_lineage
from ml_platform.lineage.version_sources import version_sources
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform_tests.paths import PROJECT_ROOT


@pytest.fixture
def released(shops, trained_shops):
    """The shops with version 1 serving."""
    trained = trained_shops[1]
    evaluation = shops.evaluate(trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    return shops


@pytest.fixture
def lineage(released):
    declared = Declared({}, released.views, {released.folder / "defs.yaml": released.spec})
    built, problems = build_lineage(declared, released.lake, released.store)
    assert problems == []
    return built


def test_a_dropped_column_breaks_what_serves_and_says_who_to_tell(lineage, released):
    impact = impact_of(lineage, [Node("raw.loads", "load")])
    by_kind = {one.kind: one for one in impact.affected}
    name = released.spec.name
    assert by_kind["version"].object == f"model:{name}@1"
    assert by_kind["version"].facts[0] == f"serves 100% of {name}"
    assert by_kind["endpoint"].object == f"endpoint:{name}"
    assert by_kind["view"].at_first_hand
    assert not by_kind["endpoint"].at_first_hand
    assert {"shops@example.com", released.spec.owner} <= set(impact.owners)


def test_a_column_of_the_label_reaches_the_model_and_not_the_features(lineage, released):
    target = Node(f"training_set:{released.spec.name}", released.spec.target)
    label = next(edge.source for edge in lineage.graph.edges_into(target) if edge.direct)
    reached = {node.object for node in lineage.graph.downstream(label, direct_only=True)}
    assert f"model:{released.spec.name}@1" in reached
    assert not any(name.startswith("features.") for name in reached)


def test_the_rows_of_a_version_are_those_it_was_trained_on(lineage, released):
    sources = version_sources(released.lake, released.store, lineage, released.spec.name, 1)
    manifest = released.store.load_manifest(released.store.versions(released.spec.name)[1])
    own = next(table for table in sources.tables if table.role == "training set")
    assert own.rows is not None
    selected = query(released.lake, own.select).height
    assert selected >= sources.training_rows
    assert any(f"{selected - sources.training_rows:,} more" in note for note in sources.notes)
    spine = next(table for table in sources.tables if table.table == "raw/orders")
    assert query(released.lake, spine.select).height == selected
    assert {table.table: table.version for table in sources.tables} == {
        manifest.provenance.training_set: manifest.provenance.training_set_version,
        **manifest.provenance.tables,
    }
    importances = [importance for _, _, importance in sources.features]
    assert importances == sorted(importances, reverse=True)


def test_a_table_that_was_changed_since_is_read_at_its_version(lineage, released):
    before = version_sources(released.lake, released.store, lineage, released.spec.name, 1)
    rows = released.lake.read("raw/orders").head(3).collect()
    released.lake.append("raw/orders", rows.with_columns(pl.format("again-{}", "order_id").alias("order_id")))
    after = version_sources(released.lake, released.store, lineage, released.spec.name, 1)
    assert before.tables == after.tables


def test_an_unknown_version_names_those_that_there_are(lineage, released):
    with pytest.raises(LookupError, match="1"):
        version_sources(released.lake, released.store, lineage, released.spec.name, 9)


def test_the_stored_graph_is_the_graph(lineage, released):
    write_lineage(released.settings, lineage, ["view x: wrong"])
    document = read_document(lineage_path(released.settings))
    assert document is not None
    again = lineage_of(document)
    assert again.graph.edges == lineage.graph.edges
    assert again.objects == lineage.objects
    assert document.problems == ["view x: wrong"]


def test_the_checks_that_are_named_exist():
    snapshot = (PROJECT_ROOT / "ml_platform_tests" / "defs" / "graph_snapshot.json").read_text(encoding="utf-8")
    for names in CHECKS.values():
        for name in names:
            assert f'"{name}"' in snapshot or f":{name}" in snapshot, name


# ---- the commands, on the flights example without any data


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    runner = CliRunner()
    return lambda *words: runner.invoke(cli.app, words)


def test_impact_exits_by_whether_anything_breaks(run):
    used, unused, unknown = (
        run("impact", f"raw.{name}") for name in ("flights.dep_delay", "planes.seats", "flights.delay")
    )
    assert (used.exit_code, unused.exit_code, unknown.exit_code) == (1, 0, 2)
    assert "features.carrier_reliability" in used.stdout
    assert "nothing else reads it" in unused.stdout
    assert "did you mean dep_delay" in unknown.output


def test_columns_as_text_json_and_dot(run):
    text = run("columns", "raw/flights.tailnum", "--downstream").stdout
    assert "features.aircraft_rotation.tailnum  (copy, filter, window)" in text
    assert "depends on" not in text
    document = json.loads(run("columns", "raw.flights.tailnum", "--upstream", "--format", "json").stdout)
    assert [[*column] for column in document["columns"]] == [["raw.flights", "tailnum"], ["source:flights", "tailnum"]]
    drawn = run("columns", "features.origin_weather.temp", "--upstream", "--format", "dot").stdout
    assert '"raw.weather":"temp" -> "features.origin_weather":"temp" [label="copy"]' in drawn


def test_version_wants_a_model_and_a_number(run):
    assert run("version", "flight_delay").exit_code == 2
    answer = run("version", "flight_delay@7")
    assert answer.exit_code == 2
    assert "flight_delay" in answer.output


def test_refresh_stores_a_graph(run, tmp_path):
    assert "35 objects" in run("refresh").stdout
    assert msgspec.json.decode((tmp_path / "reports" / "lineage.json").read_bytes())["format"] == 1
