"""Reading a walk's outcomes again and again gives what reading them once does, whoever writes meanwhile."""

from dataclasses import fields
from pathlib import Path

import msgspec
import numpy as np

from ml_platform.inference.outcomes import Outcome, OutcomeReader, read_outcomes
from ml_platform.segment_log.segments import SUFFIX

NAME, REVISION, CANDIDATE = "order_late", 3, 2


def outcome(number: int, **changes: object) -> Outcome:
    plain = Outcome(REVISION, 1 + number % 2, float(number), 0.001 * number, False, False, number % 7, [number / 100])
    return msgspec.structs.replace(plain, **changes)


def line(one: Outcome) -> bytes:
    return msgspec.json.encode(one) + b"\n"


def append(folder: Path, worker: str, content: bytes) -> None:
    (folder / NAME).mkdir(exist_ok=True)
    with (folder / NAME / f"{worker}{SUFFIX}").open("ab") as file:
        file.write(content)


def test_each_look_adds_what_is_new_and_equals_a_look_at_all(tmp_path: Path) -> None:
    reader = OutcomeReader(tmp_path, NAME, REVISION, CANDIDATE)
    assert len(reader.read().is_canary) == 0
    torn = line(outcome(4))
    steps = [
        ("a", line(outcome(3)) + line(outcome(1)) + torn[:20]),  # the end of the last line is not there yet
        ("b", line(outcome(2)) + line(outcome(9, revision=7))),  # and another revision's
        ("a", torn[20:] + line(outcome(6, scores=[0.1, 0.2, 0.3]))),
        ("c", b"[3,tor\n" + line(outcome(5, failed=True, scores=[]))),  # of a worker that was killed
        ("a", line(outcome(7, scores=[[0.1, 0.9]]))),  # of a version with other classes
    ]
    seen = 0
    for worker, content in steps:
        append(tmp_path, worker, content)
        found, whole = reader.read(), read_outcomes(tmp_path, NAME, REVISION, CANDIDATE)
        for field in fields(whole):
            assert np.array_equal(getattr(found, field.name), getattr(whole, field.name)), field.name
        assert (np.diff(found.seconds) > 0).all()  # in the order of their answers
        seen = len(found.is_canary)
    assert seen == 7
    last = reader.read()
    assert last.is_canary.tolist() == [True, False, True, False, True, False, True]
    assert last.scores[:, 0].tolist() == [0.01, 0.02, 0.03, 0.04, 0.1, 0.2, 0.3]
    assert last.score_request.tolist() == [0, 1, 2, 3, 5, 5, 5]
    assert last.failed.tolist() == [False] * 4 + [True, False, False]
    assert last.first(4).scores.shape == (4, 1)


def test_files_that_were_removed_are_no_error(tmp_path: Path) -> None:
    reader = OutcomeReader(tmp_path, NAME, REVISION, CANDIDATE)
    append(tmp_path, "a", line(outcome(1)))
    assert len(reader.read().is_canary) == 1
    (tmp_path / NAME / f"a{SUFFIX}").unlink()
    append(tmp_path, "b", line(outcome(2)))
    assert len(reader.read().is_canary) == 2
