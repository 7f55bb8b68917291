"""Events of materialisations reach a receiver, in order and as OpenLineage's own client would have written them."""

import json
import typing
from collections.abc import Mapping
from typing import Any

import attr
import dagster as dg
import pytest
from dagster_duckdb import DuckDBResource
from openlineage.client import event_v2
from openlineage.client.generated import (
    column_lineage_dataset,
    dataset_version_dataset,
    documentation_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    ownership_dataset,
    ownership_job,
    parent_run,
    schema_dataset,
    source_code_job,
    sql_job,
)
from openlineage.client.serde import Serde

from ml_platform.lineage.openlineage_transport import OpenLineageSettings
from ml_platform.lineage.project_graph import Declared, build_lineage
from ml_platform.lineage.store import write_lineage
from ml_platform.orchestration.feature_assets import feature_view_defs
from ml_platform.orchestration.openlineage_sensor import Cursor, deliver_new
from ml_platform.orchestration.resources import Platform

# The package has no JSON schemas, but the classes that are generated from them: fields, types and URL of each facet.
FACETS = {
    "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet,
    "version": dataset_version_dataset.DatasetVersionDatasetFacet,
    "documentation": documentation_dataset.DocumentationDatasetFacet,
    "schema": schema_dataset.SchemaDatasetFacet,
    "jobType": job_type_job.JobTypeJobFacet,
    "sql": sql_job.SQLJobFacet,
    "sourceCode": source_code_job.SourceCodeJobFacet,
    "parent": parent_run.ParentRunFacet,
    "errorMessage": error_message_run.ErrorMessageRunFacet,
    "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def built(kind: Any, value: Any) -> Any:
    """Make an object of the client of plain values; a key that its class does not have is a TypeError."""
    arguments = typing.get_args(kind)
    if attr.has(kind):
        hints = typing.get_type_hints(kind)
        fields = {name: built(hints[name], item) for name, item in value.items() if not name.startswith("_")}
        made = kind(**fields, **({"producer": value["_producer"]} if "_producer" in value else {}))
        if "_schemaURL" in value:
            assert getattr(made, "_schemaURL") == value["_schemaURL"]  # noqa: B009 - mypy sees no such attribute
        return made
    if typing.get_origin(kind) is list:
        return [built(arguments[0], item) for item in value]
    if typing.get_origin(kind) is dict:
        return {name: built(arguments[1], item) for name, item in value.items()}
    if type(None) in arguments:
        return built(next(one for one in arguments if one is not type(None)), value)
    return value


def facets(given: Mapping[str, Any], ownership: type) -> dict[str, Any]:
    return {name: built(FACETS.get(name, ownership), facet) for name, facet in given.items()}


def check(event: dict[str, Any]) -> None:
    """Make the same event by OpenLineage's client, and compare."""

    def dataset(kind, one, *, extra):
        more = {name: facets(one[name], ownership_dataset.OwnershipDatasetFacet) for name in (extra,) if name in one}
        known = facets(one["facets"], ownership_dataset.OwnershipDatasetFacet)
        return kind(namespace=one["namespace"], name=one["name"], facets=known, **more)

    official = event_v2.RunEvent(
        eventTime=event["eventTime"],
        producer=event["producer"],
        eventType=event_v2.RunState[event["eventType"]],
        run=event_v2.Run(event["run"]["runId"], facets(event["run"]["facets"], type(None))),
        job=event_v2.Job(
            event["job"]["namespace"],
            event["job"]["name"],
            facets(event["job"]["facets"], ownership_job.OwnershipJobFacet),
        ),
        inputs=[dataset(event_v2.InputDataset, one, extra="inputFacets") for one in event["inputs"]],
        outputs=[dataset(event_v2.OutputDataset, one, extra="outputFacets") for one in event["outputs"]],
    )
    assert without_empty(Serde.to_dict(official)) == without_empty(event)


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: without_empty(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in (None, [], {})}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def world(shops):
    """The shops, with their graph stored."""
    lineage, _ = build_lineage(Declared({}, shops.views, {shops.folder / "defs.yaml": shops.spec}), shops.lake)
    write_lineage(shops.settings, lineage, [])
    return shops


def materialise(instance, world, view) -> dg.ExecuteInProcessResult:
    [table, *_] = feature_view_defs(view).assets or ()
    assert isinstance(table, dg.AssetsDefinition)
    resources = {"platform": Platform(home=str(world.settings.home)), "duckdb": DuckDBResource(database=":memory:")}
    return dg.materialize([table], instance=instance, resources=resources, raise_on_error=False)


def test_start_and_end_reach_the_receiver_as_its_own_client_would_write_them(instance, world, receiver):
    settings = OpenLineageSettings(url=receiver.url, namespace="shops")
    cursor, _ = deliver_new(instance, settings, world.settings, None)
    view = world.views["shop_load"]
    assert materialise(instance, world, view).success
    cursor, said = deliver_new(instance, settings, world.settings, cursor)
    assert (cursor.sent, cursor.dropped, said) == (2, 0, "")
    start, end = receiver.taken
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == end["run"]["runId"]
    for event in (start, end):
        check(event)
    [output] = end["outputs"]
    assert output["name"] == "features.shop_load"
    assert output["facets"]["version"]["datasetVersion"] == str(world.lake.version("features/shop_load"))
    [load] = output["facets"]["columnLineage"]["fields"]["load"]["inputFields"]
    assert (load["name"], load["field"], load["transformations"][0]["subtype"]) == ("raw.loads", "load", "IDENTITY")
    [source] = end["inputs"]
    assert source["facets"]["version"]["datasetVersion"] == str(world.lake.version("raw/loads"))
    assert end["job"]["facets"]["sql"]["query"] == view.sql
    # What was delivered is not delivered again.
    assert deliver_new(instance, settings, world.settings, cursor)[0].sent == 2


def test_a_failed_step_is_told_with_its_error(instance, world, receiver):
    settings = OpenLineageSettings(url=receiver.url)
    cursor, _ = deliver_new(instance, settings, world.settings, None)
    broken = world.views["shop_load"].model_copy(update={"sql": "SELECT no_such_column FROM raw.loads"})
    assert not materialise(instance, world, broken).success
    deliver_new(instance, settings, world.settings, cursor)
    assert [event["eventType"] for event in receiver.taken] == ["START", "FAIL"]
    check(receiver.taken[1])
    assert receiver.taken[1]["run"]["facets"]["errorMessage"]["message"]


def test_events_wait_for_a_receiver_that_is_away_and_come_in_order(instance, world, receiver):
    settings = OpenLineageSettings(url=receiver.url)
    cursor, _ = deliver_new(instance, settings, world.settings, None)
    materialise(instance, world, world.views["shop_load"])
    receiver.statuses = [503, 503]
    for _ in range(2):
        cursor, said = deliver_new(instance, settings, world.settings, cursor)
        assert "503" in said
        assert cursor.sent == 0
    cursor, said = deliver_new(instance, settings, world.settings, cursor)
    assert (cursor.sent, cursor.dropped, said) == (2, 0, "")
    assert [event["eventType"] for event in receiver.taken] == ["START", "COMPLETE"]


def test_an_event_that_is_refused_is_left_out_and_counted(instance, world, receiver):
    settings = OpenLineageSettings(url=receiver.url)
    cursor, _ = deliver_new(instance, settings, world.settings, None)
    materialise(instance, world, world.views["shop_load"])
    receiver.statuses = [422, 422, 422]
    for _ in range(3):
        cursor, said = deliver_new(instance, settings, world.settings, cursor)
    assert (cursor.sent, cursor.dropped) == (1, 1)
    assert "422" in said


def test_no_more_wait_than_allowed(instance, world, receiver):
    settings = OpenLineageSettings(url=receiver.url, max_waiting=1)
    cursor, _ = deliver_new(instance, settings, world.settings, None)
    materialise(instance, world, world.views["shop_load"])
    cursor, said = deliver_new(instance, settings, world.settings, cursor)
    assert cursor.dropped > 0
    assert "were left out" in said


def test_events_to_a_file_are_lines(instance, world, tmp_path):
    settings = OpenLineageSettings(url=f"file://{tmp_path}/events.jsonl")
    cursor = deliver_new(instance, settings, world.settings, None)[0]
    materialise(instance, world, world.views["shop_load"])
    assert deliver_new(instance, settings, world.settings, cursor)[0] == Cursor(after=cursor.after, sent=2)
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["eventType"] for line in lines] == ["START", "COMPLETE"]


@pytest.mark.parametrize("url", ["marquez:5000", "ftp://x/y", "kafka://broker:9092", "file://"])
def test_a_url_that_leads_nowhere_is_refused(url):
    with pytest.raises(ValueError, match="ML_PLATFORM_OPENLINEAGE_URL"):
        OpenLineageSettings(url=url)
