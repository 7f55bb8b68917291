import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_platform.spec.families import Parameter
from ml_platform.spec.model import Tuning
from ml_platform.training.objective import Objective
from ml_platform.training.search.records import TrialRecord
from ml_platform.training.search.study import ATTEMPTS, NoTrialSucceeded, SearchStudy, study_in_memory
from ml_platform.training.search.study_file import kept_study
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.training.search import toy_families
from ml_platform_tests.training.search.toy_families import FAMILIES, toy_data

TILTED, BENT = FAMILIES


class Heard:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended_trials: list[int] = []

    def started(self, number: int, family: str) -> None:
        self.begun.append(number)

    def ended(self, record: TrialRecord, records: tuple[TrialRecord, ...]) -> None:
        self.ended_trials.append(record.number)
        assert record in records


@pytest.fixture(autouse=True)
def own_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_families, "before_fit", [])
    monkeypatch.setattr(toy_families, "fits", [])


def run(tuning: Tuning, *, rows: int = 400, families: tuple[str, ...] = FAMILIES) -> tuple[TrialRecord, ...]:
    with study_in_memory(higher_is_better=True) as study:
        return SearchStudy(study, families, tuning, "roc_auc", toy_data(rows)).run("local", Heard())


def facts(records: tuple[TrialRecord, ...]) -> list[dict[str, Any]]:
    return [record.model_dump(exclude={"seconds"}) for record in records]


def kept(folder: Path, tuning: Tuning) -> tuple[TrialRecord, ...]:
    """A search in this process whose study is kept in a folder."""
    with kept_study(folder, "key", higher_is_better=True) as study:
        return SearchStudy(study, FAMILIES, tuning, "roc_auc", toy_data()).run("local", Heard())


def test_one_study_tries_all_families_their_defaults_first() -> None:
    records = run(Tuning(trials=6))
    assert [record.number for record in records] == list(range(12))
    assert [(record.family, record.suggested) for record in records[:2]] == [
        (TILTED, {"tilt": 0.9}),
        (BENT, {"tilt": 5.0, "shape": "round"}),
    ]
    for family, low, high in ((TILTED, -1, 1), (BENT, 1, 9)):
        own = [record for record in records if record.family == family]
        assert len(own) == 6
        assert all(low <= float(record.suggested["tilt"]) <= high for record in own)
        assert len({str(record.suggested) for record in own}) == 6


def test_trials_in_total_go_to_the_family_that_does_better() -> None:
    records = run(Tuning(total_trials=30))
    assert len(records) == 30
    tilted = [record for record in records if record.family == TILTED]
    assert len(tilted) > 18
    best = max(records, key=lambda record: record.metrics["roc_auc"])
    assert best.family == TILTED
    assert float(best.params["tilt"]) == pytest.approx(0.3, abs=0.15)


def test_same_seed_gives_the_same_study_and_another_seed_another() -> None:
    assert facts(run(Tuning(trials=5, seed=3))) == facts(run(Tuning(trials=5, seed=3)))
    assert facts(run(Tuning(trials=5, seed=4)))[2:] != facts(run(Tuning(trials=5, seed=3)))[2:]


def test_a_failing_trial_is_kept_with_its_reason_and_ends_nothing() -> None:
    def fail(family: str, params: Mapping[str, Parameter]) -> None:
        if family == "bent" and params["shape"] == "square":
            raise MemoryError("Unable to allocate 3 TiB")

    toy_families.before_fit.append(fail)
    records = run(Tuning(trials=8))
    failed = [record for record in records if record.state == "failed"]
    assert failed
    assert {record.reason for record in failed} == {"MemoryError: Unable to allocate 3 TiB"}
    assert {record.suggested["shape"] for record in failed} == {"square"}
    assert len(records) == 16
    assert {record.family for record in records if record.state == "complete"} == set(FAMILIES)


def test_a_family_that_only_fails_is_given_up() -> None:
    def fail(family: str, params: Mapping[str, Parameter]) -> None:
        if family == "bent":
            raise RuntimeError("no GPU")

    toy_families.before_fit.append(fail)
    records = run(Tuning(total_trials=12))
    assert [record.reason for record in records if record.family == BENT] == ["RuntimeError: no GPU"] * 3
    assert sum(record.state == "complete" for record in records) == 9


def test_where_no_trial_succeeds_all_reasons_are_told() -> None:
    def fail(family: str, params: Mapping[str, Parameter]) -> None:
        raise RuntimeError("no GPU" if family == "bent" else "no rows")

    toy_families.before_fit.append(fail)
    with pytest.raises(NoTrialSucceeded, match=r"none of the 6 trials .*: no rows; .*: RuntimeError: no GPU") as caught:
        run(Tuning(trials=8))
    assert "Tilted (trials 0, " in str(caught.value)


def test_an_undefined_metric_is_a_failure_with_advice() -> None:
    data = toy_data()
    data.y_validation[:] = 1.0
    with study_in_memory(higher_is_better=True) as study:
        search = SearchStudy(study, (TILTED,), Tuning(trials=1), "roc_auc", data)
        with pytest.raises(NoTrialSucceeded, match=r"metric 'roc_auc' is undefined on the validation rows .*longer"):
            search.run("local", Heard())


def test_poor_trials_end_on_an_eighth_of_the_rows() -> None:
    records = run(Tuning(trials=12), rows=40_000)
    pruned = [record for record in records if record.state == "pruned"]
    complete = [record for record in records if record.state == "complete"]
    assert {rows for _, rows in toy_families.fits} == {5_000, 40_000}
    assert sum(rows == 40_000 for _, rows in toy_families.fits) == len(complete)
    assert sum(rows == 5_000 for _, rows in toy_families.fits) == len(records) == 24
    assert len(pruned) >= 4
    for family in FAMILIES:  # judged within the family, after three of it
        own = [record for record in records if record.family == family]
        assert all(record.state == "complete" for record in own[:3])
        for position, record in enumerate(own[3:], start=3):
            median = np.median([other.rungs[5_000] for other in own[:position]])
            assert (record.state == "pruned") == (record.rungs[5_000] < median)
    assert all("in the worse half of its family" in record.reason for record in pruned)
    assert facts(records) == facts(run(Tuning(trials=12), rows=40_000))


def test_pruning_can_be_left_out() -> None:
    assert {record.state for record in run(Tuning(trials=8, pruning=False), rows=40_000)} == {"complete"}
    assert {rows for _, rows in toy_families.fits} == {40_000}


def test_a_finished_study_is_read_and_not_repeated(tmp_path: Path) -> None:
    first = kept(tmp_path, Tuning(trials=3))
    number = len(toy_families.fits)
    assert number == 6
    assert kept(tmp_path, Tuning(trials=3)) == first
    assert len(toy_families.fits) == number


def test_an_interrupted_search_goes_on_to_the_same_study(tmp_path: Path) -> None:
    def interrupt(family: str, params: Mapping[str, Parameter]) -> None:
        if len(toy_families.fits) == 5:
            raise KeyboardInterrupt

    whole = run(Tuning(trials=6))
    toy_families.fits.clear()
    toy_families.before_fit.append(interrupt)
    for _ in range(ATTEMPTS + 1):  # by hand, however often, it is no fault of the trial's
        with pytest.raises(KeyboardInterrupt):
            kept(tmp_path, Tuning(trials=6))
    toy_families.before_fit.clear()
    assert facts(kept(tmp_path, Tuning(trials=6))) == facts(whole)
    assert len(toy_families.fits) == 12


DRIVER = """
import os, signal, sys
from pathlib import Path
from ml_platform.spec.model import Tuning
from ml_platform_tests.training.search import toy_families
from ml_platform_tests.training.search.test_study import kept

def kill(family, params):
    if len(toy_families.fits) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

toy_families.before_fit.append(kill)
kept(Path(sys.argv[1]), Tuning(trials=6))
"""


def killed(folder: Path, fits: int) -> None:
    """Run a search in a process that is killed when its fit after so many begins."""
    command = [sys.executable, "-c", DRIVER, str(folder), str(fits)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
def test_after_a_kill_no_finished_trial_is_lost(tmp_path: Path) -> None:
    killed(tmp_path, 5)
    records = kept(tmp_path, Tuning(trials=6))
    assert len(toy_families.fits) == 7, "the killed trial and those after it"
    assert facts(records) == facts(run(Tuning(trials=6)))


def test_a_trial_that_kills_its_process_each_time_is_a_failure(tmp_path: Path) -> None:
    with kept_study(tmp_path, "key", higher_is_better=True) as study:
        search = SearchStudy(study, FAMILIES, Tuning(trials=1), "roc_auc", toy_data())
        trial = search._ask([])
        assert trial is not None
        trial.set_user_attr("attempts", ATTEMPTS)  # as many processes were killed during it
    [first, second] = kept(tmp_path, Tuning(trials=1))
    assert (first.state, second.state) == ("failed", "complete")
    assert "the process ended during each of its 3 attempts" in first.reason
    assert len(toy_families.fits) == 1


def test_a_trial_that_was_kept_and_not_told_is_not_run_again(tmp_path: Path) -> None:
    """The kill fell between two writes of one trial's end."""
    tuning = Tuning(trials=2)
    records = kept(tmp_path, tuning)
    [journal] = tmp_path.glob("*.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    told = max(place for place, line in enumerate(lines) if b'"op_code":6' in line)
    journal.write_bytes(b"".join(lines[:told]))
    toy_families.fits.clear()
    assert facts(kept(tmp_path, tuning)) == facts(records)
    assert not toy_families.fits


@pytest.mark.slow
def test_ray_tries_the_families_too_and_keeps_what_fails(tmp_path: Path) -> None:
    with kept_study(tmp_path, "key", higher_is_better=True) as study:
        search = SearchStudy(study, (*FAMILIES, f"{BENT}Missing"), Tuning(trials=4), "roc_auc", toy_data())
        heard = Heard()
        records = search.run("ray", heard)
    assert sorted(heard.ended_trials) == list(range(len(records)))
    assert {record.family for record in records if record.state == "complete"} == set(FAMILIES)
    assert sum(record.state == "complete" for record in records) == 8
    [reason] = {record.reason for record in records if record.state == "failed"}
    assert "BentMissing" in reason


def test_the_digest_is_of_all_that_trials_read() -> None:
    data = toy_data()
    others = [
        replace(data, X=data.X + 1.0),
        replace(data, y=1.0 - data.y),
        replace(data, X_validation=data.X_validation[1:]),
        replace(data, y_validation=1.0 - data.y_validation),
        replace(data, features=data.features[::-1]),
        replace(data, objective=Objective(weights=np.ones(len(data.y)))),
        replace(data, objective=Objective(validation_weights=np.ones(len(data.y_validation)))),
        replace(data, objective=Objective(class_weights=(1.0, 2.0))),
        replace(data, objective=Objective(monotone=(1, 0))),
    ]
    assert toy_data().digest() == data.digest()
    assert len({data.digest(), *(other.digest() for other in others)}) == 1 + len(others)
