"""Documents between assets belong to runs: two runs never mix, a retry goes on, an asset alone takes finished ones."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from pydantic import BaseModel

from ml_platform.orchestration.json_io_manager import KEPT, JsonIOManager, MixedDocuments, newest_document


class Rows(BaseModel):
    """A document that says which attempt made it."""

    made: str


def chain(folder: Path, mark: str, *, fails: bool = False) -> dg.Definitions:
    """first → second → third, which takes first and second."""

    def asset(name: str):
        return dg.asset(key=["toy", name], io_manager_key="json_io_manager")

    def takes(*names: str) -> dict[str, dg.AssetIn]:
        return {name: dg.AssetIn(key=["toy", name]) for name in names}

    @asset("first")
    def first() -> Rows:
        return Rows(made=f"first {mark}")

    @dg.asset(key=["toy", "second"], ins=takes("first"), io_manager_key="json_io_manager")
    def second(first: Rows) -> Rows:
        return Rows(made=f"second {mark} of {first.made}")

    @dg.asset(key=["toy", "third"], ins=takes("first", "second"), io_manager_key="json_io_manager")
    def third(first: Rows, second: Rows) -> Rows:
        if fails:
            raise ValueError("as the test wants")
        return Rows(made=f"{first.made} + {second.made}")

    return dg.Definitions(
        assets=[first, second, third],
        resources={"json_io_manager": JsonIOManager(folder=str(folder))},
        executor=dg.in_process_executor,
    )


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def run(tmp_path, instance):
    def _run(mark: str, *names: str, fails: bool = False) -> dg.ExecuteInProcessResult:
        job = chain(tmp_path, mark, fails=fails).resolve_implicit_global_asset_job_def()
        selection = [dg.AssetKey(["toy", name]) for name in names] or None
        return job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=not fails)

    return _run


@pytest.fixture
def made(tmp_path, instance):
    def _made(name: str) -> Any:
        stored = newest_document(tmp_path, dg.AssetKey(["toy", name]), instance)
        assert stored is not None
        return stored.document["made"]

    return _made


def test_a_run_reads_what_it_made_itself(run, made):
    run("A")
    run("B")
    assert made("third") == "first B + second B of first B"


def test_an_asset_alone_takes_what_the_newest_finished_run_made(run, made):
    run("A")
    run("B", "second")
    assert made("second") == "second B of first A"
    run("C", "third")
    assert made("third") == "first A + second B of first A"


def test_a_run_under_way_is_not_read_by_another(run, made, instance, tmp_path):
    """Its documents may yet be replaced; what ended before it is whole."""
    run("A")
    other = run("B", "first").run_id
    stored = instance.get_run_by_id(other)
    instance.delete_run(other)
    instance.add_run(stored.with_status(dg.DagsterRunStatus.STARTED))
    run("C", "second")
    assert made("second") == "second C of first A"


def test_inputs_of_different_origin_are_refused(run):
    """Else a version would be released on another one's evaluation."""
    run("A")
    run("B", "first")
    with pytest.raises(MixedDocuments, match=r"toy/second was made from first of run .* Materialise first and all"):
        run("C", "third")
    run("D", "second", "third")


def test_a_retry_goes_on_with_what_its_parent_made(run, made, tmp_path, instance):
    failed = run("A", fails=True)
    run("B")
    parent = {"dagster/parent_run_id": failed.run_id, "dagster/root_run_id": failed.run_id}
    job = chain(tmp_path, "retry").resolve_implicit_global_asset_job_def()
    run_of_retry = instance.create_run_for_job(
        job.get_subset(asset_selection={dg.AssetKey(["toy", "third"])}),
        parent_run_id=failed.run_id,
        root_run_id=failed.run_id,
        tags=parent,
    )
    retried = execute_run(
        InMemoryJob(job.get_subset(asset_selection={dg.AssetKey(["toy", "third"])})), run_of_retry, instance
    )
    assert retried.success
    assert made("third") == "first A + second A of first A"


def test_only_documents_can_be_handed_on(tmp_path, instance):
    @dg.asset(io_manager_key="json_io_manager")
    def table() -> list:
        return [1]

    with pytest.raises(TypeError, match="table returned list; a pydantic document was wanted"):
        dg.materialize([table], instance=instance, resources={"json_io_manager": JsonIOManager(folder=str(tmp_path))})


def test_old_documents_are_removed(tmp_path, run):
    folder = tmp_path / "toy" / "first"
    folder.mkdir(parents=True)
    for number in range(KEPT + 5):
        (folder / f"{number}.json").write_text("{}")
    run("A", "first")
    assert len(list(folder.iterdir())) == KEPT
