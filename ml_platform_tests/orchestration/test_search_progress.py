"""How far a search is: in the run's log and on the asset, and in a terminal or a pipe."""

import io

import dagster as dg

from ml_platform.orchestration.search_progress import search_progress, shown_in_terminal
from ml_platform.training.search.progress import Progress
from ml_platform.training.search.records import TrialRecord
from ml_platform_tests.orchestration.test_data_checks import definitions
from ml_platform_tests.toy_world import Shops
from ml_platform_tests.training.search.toy_families import FAMILIES


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(ended: int) -> Progress:
    record = TrialRecord(
        number=ended - 1,
        family="ridge",
        state="complete",
        suggested={},
        params={},
        metrics={"rmse": 2.5},
        seconds=0.5,
    )
    return Progress(record, ended, 4, "rmse", record, 1.0)


def told(stream: io.StringIO) -> tuple[list[str], list[str]]:
    log, lines = list[str](), list[str]()
    with shown_in_terminal(lines.append, stream), search_progress(log.append, 4) as on_progress:
        for ended in range(1, 5):
            on_progress(progress(ended))
    return log, lines


def test_a_pipe_gets_a_line_for_each_trial() -> None:
    log, lines = told(io.StringIO())
    assert log[0] == "trial 1 of 4: ridge, rmse 2.5000 in 0.5 s; best 2.5000, ridge"
    assert [line.strip() for line in lines] == log


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    log, lines = told(terminal)
    assert (len(log), lines) == (4, [])
    assert "4/4" in terminal.getvalue()
    assert "rmse 2.5000 (ridge)" in terminal.getvalue()


def test_the_asset_logs_each_trial_and_shows_the_study(shops: Shops) -> None:
    world = shops.respecified(families=list(FAMILIES), tuning={"trials": 4})
    lines = list[str]()
    keys = [dg.AssetKey(["order_late", name]) for name in ("training_set", "candidates")]
    job = definitions(world).resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance, shown_in_terminal(lines.append, io.StringIO()):
        result = job.execute_in_process(asset_selection=keys, instance=instance)
        logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    [materialization] = result.asset_materializations_for_node("order_late__candidates")
    metadata = materialization.metadata
    assert metadata["trials"].value == 8
    assert {"plot/history", "plot/parameter_importance", "plot/parallel_coordinates", "ranking"} <= set(metadata)
    assert [line.strip() for line in lines] == [line for line in logged if line.startswith("trial ")]
    assert len(lines) == 8
