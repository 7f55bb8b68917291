"""Rows of a growing folder as messages: what is half written waits, what is replaced or removed is named."""

import os
from datetime import timedelta

import polars as pl
import pytest

from ml_platform.spec.stream_sources import FolderSource
from ml_platform.streams.folder_index import FolderIndex, Segment
from ml_platform.streams.folder_source import FolderRows
from ml_platform.streams.protocols import Message, Resume, StreamMisfit


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def opened(tmp_path, folder):
    def opened(after: int = -1, pattern: str = "*.jsonl", **keys) -> FolderRows:
        source = FolderRows(
            FolderSource(type="folder", path=str(folder), pattern=pattern, **keys), tmp_path / "state" / "folder.index"
        )
        assert list(source.partitions()) == [0]
        source.assign({0: Resume(after)})
        return source

    return opened


def drain(source: FolderRows) -> list[Message]:
    messages: list[Message] = []
    while found := source.read(700, 0.6):
        messages += found
    return messages


def values(messages: list[Message]) -> list[bytes]:
    return [one.value or b"" for one in messages]


def append(path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_lines_come_as_files_grow_and_half_a_line_waits(folder, opened):
    source = opened()
    append(folder / "a.jsonl", '{"n":1}\n\n{"n":2}\n{"n":')
    assert values(drain(source)) == [b'{"n":1}', b'{"n":2}']
    append(folder / "a.jsonl", "3}\r\n")
    append(folder / "_unfinished.jsonl", '{"n":0}\n')
    append(folder / ".hidden.jsonl", '{"n":0}\n')
    assert values(drain(source)) == [b'{"n":3}']
    assert source.lag()[0].waiting == 0


def test_the_last_line_counts_without_an_end_once_the_file_rests(folder, opened):
    append(folder / "a.jsonl", '{"n":1}\n{"n":2}')
    os.utime(folder / "a.jsonl", (1, 1))
    assert values(drain(opened())) == [b'{"n":1}', b'{"n":2}']


def test_a_reader_goes_on_at_any_row_and_reads_the_same(folder, opened):
    source = opened()
    for number in range(5):
        append(folder / f"{number % 2}.jsonl", "".join(f'{{"n":{number * 10 + one}}}\n' for one in range(10)))
        drain(source)
    every = drain(opened(0))
    assert len(every) == 49
    for after in (0, 9, 10, 33, 48, 49):
        again = drain(opened(after))
        assert [(m.position, m.value, m.time) for m in again] == [(m.position, m.value, m.time) for m in every[after:]]
    append(folder / "0.jsonl", '{"n":50}\n')
    assert values(drain(opened(49))) == [b'{"n":50}']


def test_nothing_answered_begins_anew_and_latest_behind_what_is_there(folder, opened):
    append(folder / "a.jsonl", '{"n":1}\n')
    assert values(drain(opened())) == [b'{"n":1}']
    assert values(drain(opened())) == [b'{"n":1}']
    source = opened(start="latest")
    append(folder / "a.jsonl", '{"n":2}\n')
    append(folder / "b.jsonl", '{"n":3}\n')
    assert sorted(values(drain(source))) == [b'{"n":2}', b'{"n":3}']


def test_renamed_files_are_known_and_a_new_one_in_their_place_is_new(folder, opened):
    source = opened()
    append(folder / "log.jsonl", '{"n":1}\n')
    drain(source)
    append(folder / "log.jsonl", '{"n":2}\n')
    (folder / "log.jsonl").rename(folder / "log.1.jsonl")  # as logs are rotated
    append(folder / "log.jsonl", '{"n":3}\n')
    assert sorted(values(drain(source))) == [b'{"n":2}', b'{"n":3}']
    append(folder / "log.1.jsonl", '{"n":4}\n')
    assert values(drain(source)) == [b'{"n":4}']


def test_a_file_that_is_copied_over_by_a_longer_one_goes_on(folder, opened, tmp_path):
    source = opened()
    append(folder / "a.jsonl", '{"n":1}\n')
    drain(source)
    append(tmp_path / "copy", '{"n":1}\n{"n":2}\n')
    (tmp_path / "copy").replace(folder / "a.jsonl")  # as rsync does
    assert values(drain(source)) == [b'{"n":2}']


@pytest.mark.parametrize(
    ("text", "how"), [('{"x":1}\n', "truncated to 8 bytes"), ('{"x":1}\n{"x":2}\n{"x":3}\n', "written anew")]
)
def test_replaced_and_truncated_files_are_named_and_read_again(folder, opened, text, how):
    source = opened()
    append(folder / "a.jsonl", '{"n":1}\n{"n":2}\n')
    drain(source)
    (folder / "a.jsonl").write_text(text)
    [note, *rows] = values(drain(source))
    assert note.startswith(f"a.jsonl was {how} after 16 bytes of it were read".encode())
    assert rows == text.encode().split()


def test_a_file_that_was_removed_unanswered_is_named_with_its_rows(folder, opened):
    source = opened()
    append(folder / "a.jsonl", '{"n":1}\n{"n":2}\n{"n":3}\n')
    drain(source)
    (folder / "a.jsonl").unlink()
    with pytest.raises(StreamMisfit, match=r"a.jsonl: up to 2 rows of it were deleted before .* it is gone"):
        opened(0)
    assert drain(opened(2)) == []
    append(folder / "b.jsonl", '{"n":4}\n')  # perhaps with the inode of the removed one
    assert values(drain(opened(2))) == [b'{"n":4}']


def test_csv_becomes_objects_and_lines_within_quotes_are_one_record(folder, opened):
    source = opened(pattern="*.csv", texts=["zip"])
    append(folder / "a.csv", 'id;name;price;late;zip\n1;"a;\nb";2.50;true;12345\n2;"half')
    assert values(drain(source)) == [b'{"id": 1, "name": "a;\\nb", "price": 2.50, "late": true, "zip": "12345"}']
    append(folder / "a.csv", '";;false;01\n3;too few\n')
    assert values(drain(source)) == [
        b'{"id": 2, "name": "half", "price": null, "late": false, "zip": "01"}',
        b"3;too few",
    ]
    assert len(drain(opened(0, pattern="*.csv", texts=["zip"]))) == 2


def test_parquet_is_read_once_it_is_whole(folder, opened, tmp_path):
    source = opened(pattern="*.parquet", settled_after=timedelta(hours=1))
    frame = pl.DataFrame({"n": range(25_000)})
    frame.write_parquet(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    (folder / "a.parquet").write_bytes(content[:-100])
    assert drain(source) == []
    (folder / "a.parquet").write_bytes(content)
    first = drain(source)
    assert values(first) == [b'{"n":%d}' % number for number in range(25_000)]
    os.utime(folder / "a.parquet")  # touched
    assert drain(source) == []
    assert values(drain(opened(12_345, pattern="*.parquet"))) == values(first)[12_346:]
    (folder / "b.parquet").write_bytes(b"no Parquet")
    os.utime(folder / "b.parquet", (1, 1))
    assert values(drain(source)) == [b"b.parquet is not a Parquet file that can be read"]
    pl.DataFrame({"n": [7]}).write_parquet(folder / "a.parquet")
    [note, row] = values(drain(source))
    assert note.startswith(b"a.parquet was written anew after 25,000 rows of it were read")
    assert row == b'{"n":7}'


def test_what_was_read_while_another_process_held_the_index_is_known(folder, opened):
    first, second = opened(), opened()
    append(folder / "a.jsonl", '{"n":1}\n')
    assert values(drain(first)) == [b'{"n":1}']
    append(folder / "a.jsonl", '{"n":2}\n')
    assert [(m.position, m.value) for m in drain(second)] == [(0, b'{"n":1}'), (1, b'{"n":2}')]
    assert values(drain(first)) == [b'{"n":2}']


def test_an_index_that_is_lost_is_said(folder, opened, tmp_path):
    append(folder / "a.jsonl", '{"n":1}\n{"n":2}\n')
    drain(opened())
    (tmp_path / "state" / "folder.index").unlink()
    with pytest.raises(StreamMisfit, match=r"answers go to row 1 of the folder, its index .* to -1: restore it"):
        opened(1)


def test_a_long_index_is_compacted_and_forgets_no_file(tmp_path):
    index = FolderIndex(tmp_path / "index")
    with index.alone():
        for start in range(0, 60_000, 3000):
            index.append(
                Segment(first, 1, f"{first % 7}.jsonl", end=first, time=first) for first in range(start, start + 3000)
            )
    again = FolderIndex(tmp_path / "index")
    with again.alone():
        pass
    assert len(again.every()) < 25_000
    assert again.next == 60_000
    assert {name: one.end for name, one in again.files.items()} == {
        f"{number}.jsonl": 60_000 - 1 - (59_999 - number) % 7 for number in range(7)
    }


def test_a_folder_that_is_missing_is_said(opened, folder):
    folder.rmdir()
    with pytest.raises(StreamMisfit, match="no folder"):
        opened()
