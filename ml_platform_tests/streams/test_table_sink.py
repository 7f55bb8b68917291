"""Answers in Delta tables: positions in the commit of the rows, dead letters first, one writer at a time."""

from datetime import UTC, datetime

import msgspec
import pytest

from ml_platform.streams import table_sink, table_writer
from ml_platform.streams.answers import DeadLetter, Fault, StreamAnswer
from ml_platform.streams.protocols import Fenced, Message, Outcome, Resume, StreamMisfit
from ml_platform.streams.table_rows import answer_rows, dead_letter_rows
from ml_platform.streams.table_sink import TableAnswers, TopicCopy
from ml_platform.streams.table_writer import TableWriter

NOW = datetime(2024, 1, 1, tzinfo=UTC)
ANSWERS, DEAD = "streams/answers", "streams/answers_dead_letters"


def answer(position: int, partition: int = 0, prediction: bool | float | str | int = True) -> Outcome:
    made = StreamAnswer(
        model="m", version=3, partition=partition, position=position, request_id="r", row=0, prediction=prediction,
        key={"a": 1}, event_at=NOW, arrived_at=NOW, scored_at=NOW, flags=[{"field": "x", "message": "y"}],
    )  # fmt: skip
    return Outcome(partition, position, msgspec.json.encode(made))


def dead(position: int, partition: int = 0) -> Outcome:
    letter = DeadLetter(
        model="m", partition=partition, position=position, kind="late", reason="r", faults=(Fault("x", "y"),),
        arrived_at=NOW, refused_at=NOW, value_base64=b"\xff",
    )  # fmt: skip
    return Outcome(partition, position, msgspec.json.encode(letter), "late")


def sink(lake, seconds: float = 3600) -> TableAnswers:
    return TableAnswers(lake, "m", ANSWERS, DEAD, seconds)


def positions(lake, table=ANSWERS):
    return sorted(lake.read(table).select("partition", "position").collect().rows())


def test_rows_are_committed_with_their_positions_and_a_successor_goes_on(lake):
    first = sink(lake)
    assert first.open([0, 1]) == {0: Resume(), 1: Resume()}
    first.write([answer(0), dead(1), answer(2), answer(7, 1)])
    assert first.held == 4
    first.flush(due=True)  # not yet
    assert first.held == 4
    first.flush()
    assert first.held == 0
    assert (positions(lake), positions(lake, DEAD)) == ([(0, 0), (0, 2), (1, 7)], [(0, 1)])
    second = sink(lake)
    assert second.open([0, 1]) == {0: Resume(2), 1: Resume(7)}
    first.write([answer(3)])
    with pytest.raises(Fenced, match="another process has taken over"):
        first.flush()
    second.write([answer(3)])
    second.flush()
    assert positions(lake) == [(0, 0), (0, 2), (0, 3), (1, 7)]
    row = lake.read(ANSWERS).filter(position=3).collect().row(0, named=True)
    assert (row["prediction"], row["key"], row["flags"]) == (True, '{"a":1}', [{"field": "x", "message": "y"}])
    assert lake.read(DEAD).collect()["value_bytes"].to_list() == [b"\xff"]
    assert lake.snapshot(ANSWERS).metadata().configuration["delta.dataSkippingNumIndexedCols"] == "4"


def test_dead_letters_whose_answers_were_not_committed_are_not_made_again(lake):
    first = sink(lake)
    first.open([0])
    first.write([answer(0)])
    first.flush()
    first.write([dead(1), answer(2), dead(3)])
    # The kill falls between the two commits.
    first._dead_letters.commit(dead_letter_rows([dead(1), dead(3)]), {0: 3})
    second = sink(lake)
    assert second.open([0]) == {0: Resume(0, frozenset({1, 3}))}
    second.write([answer(2), answer(4)])
    second.flush()
    third = sink(lake)
    assert third.open([0]) == {0: Resume(4)}
    assert (positions(lake), positions(lake, DEAD)) == ([(0, 0), (0, 2), (0, 4)], [(0, 1), (0, 3)])


def test_only_dead_letters_move_the_position_once_there_is_a_table(lake):
    first = sink(lake)
    first.open([0])
    first.write([dead(0)])
    first.flush()
    assert sink(lake).open([0]) == {0: Resume(-1, frozenset({0}))}
    second = sink(lake)
    second.open([0])
    second.write([answer(1)])
    second.flush()
    second.write([dead(2)])
    second.flush()
    assert sink(lake).open([0]) == {0: Resume(2)}


def test_much_that_is_held_is_committed_before_its_time(lake, monkeypatch):
    monkeypatch.setattr(table_sink, "MOST_HELD", 3)
    one = sink(lake)
    one.open([0])
    one.write([answer(0), answer(1)])
    assert one.held == 2
    one.write([answer(2)])
    assert (one.held, len(positions(lake))) == (0, 3)


def test_two_that_make_the_table_at_once_lose_and_double_nothing(lake):
    first, second = sink(lake), sink(lake)
    first.open([0])
    second.open([0])
    first.write([answer(0)])
    second.write([answer(0)])
    first.flush()
    with pytest.raises(Fenced):
        second.flush()
    assert positions(lake) == [(0, 0)]


def test_another_type_of_prediction_is_told(lake):
    one = sink(lake)
    one.open([0])
    one.write([answer(0)])
    one.flush()
    one.write([answer(1, prediction="red")])
    with pytest.raises(StreamMisfit, match="Answer into a table of another name"):
        one.flush()
    assert answer_rows([answer(0, prediction=7)])["prediction"].to_list() == ["7"]
    assert answer_rows([answer(0, prediction=7.0)])["prediction"].to_list() == [7.0]


class Given:
    """A source of what it is given."""

    def __init__(self, *values: bytes) -> None:
        self.left = [Message(0, number, value, None, 1_000_000 + number) for number, value in enumerate(values)]

    def partitions(self):
        return [0]

    def assign(self, resume):
        self.left = [one for one in self.left if one.position > resume[0].after]

    def read(self, most, seconds):
        given, self.left = self.left[:most], self.left[most:]
        return given

    def lag(self):
        return {}

    def close(self):
        pass


def test_a_topic_is_copied_once_and_what_is_no_answer_is_told(lake):
    values = [answer(number).value for number in range(5)]

    def copy(*given: bytes) -> TopicCopy:
        made = TopicCopy("topic answers", Given(*given), TableWriter(lake, ANSWERS, "stream/m/answers"), answer_rows)
        made.open([0])
        return made

    done = copy(*values).copy()
    assert done is not None
    assert (done.table, done.rows, done.newest) == (ANSWERS, 5, 1_000_004)
    again = copy(*values)
    assert again.copy() is None
    assert positions(lake) == [(0, number) for number in range(5)]
    with pytest.raises(StreamMisfit, match="topic answers has a message that no stream wrote"):
        copy(*values, b'{"no": "answer"}').copy()


def test_small_files_are_merged_now_and_then_and_nothing_is_lost(lake, monkeypatch):
    monkeypatch.setattr(table_writer, "COMPACT_EVERY", 10)
    one = sink(lake)
    one.open([0])
    for number in range(25):
        one.write([answer(number)])
        one.flush()
    assert len(lake.snapshot(ANSWERS).file_uris()) < 10
    assert positions(lake) == [(0, number) for number in range(25)]
    assert sink(lake).open([0]) == {0: Resume(24)}


def test_a_restored_table_gets_its_rows_again(lake):
    one = sink(lake)
    one.open([0])
    one.write([answer(0)])
    one.flush()
    version = lake.version(ANSWERS)
    one.write([answer(1)])
    one.flush()
    lake.restore(ANSWERS, version)
    assert sink(lake).open([0]) == {0: Resume(0)}
