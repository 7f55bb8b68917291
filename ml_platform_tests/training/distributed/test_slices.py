from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ml_platform.lake.storage.tables import Lake
from ml_platform.training.distributed.slices import SLICES_PER_WORKER, read_slices, share_out, slices_of

TABLE = "training_sets/made"


@pytest.fixture
def written(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "a lake"))  # whose folder Delta writes percent-encoded
    frames = [
        pl.DataFrame({"n": range(first, first + 50_000), "even": [True, False] * 25_000}) for first in (0, 50_000)
    ]
    lake.replace_in_batches(TABLE, lambda: frames)
    lake.append(TABLE, pl.DataFrame({"n": [100_000], "even": [True]}))
    lake.append(TABLE, pl.DataFrame({"n": [-1], "even": [True]}))  # a version that is not asked for
    return lake


def test_workers_read_each_row_of_the_pinned_version_once_and_no_column_more(written: Lake) -> None:
    slices = slices_of(written, TABLE, 1, workers=3)
    shares = share_out([one.stop - one.start for one in slices], 3)
    read = [
        pl.concat([frame for _, frame in read_slices(written, TABLE, [slices[i] for i in share], ["n"])])
        for share in shares
    ]
    assert {tuple(frame.columns) for frame in read} == {("n",)}
    assert sorted(pl.concat(read)["n"]) == list(range(100_001))
    assert max(frame.height for frame in read) - min(frame.height for frame in read) < 5_000
    spans = [int(str(frame["n"].max())) - int(str(frame["n"].min())) for frame in read]
    assert min(spans) > 80_000, "a worker has rows of a part of the time alone"


def test_a_slice_says_which_it_is_where_several_batches_come_of_it(written: Lake) -> None:
    first, *others = slices_of(written, TABLE, 0, workers=1)
    size = max(one.stop for one in (first, *others) if (one.file, one.group) == (first.file, first.group))
    whole = replace(first, stop=size)
    values = pl.concat([frame for _, frame in read_slices(written, TABLE, [whole], ["n"])])["n"].to_list()
    own = [replace(whole, stop=size // 5), replace(whole, start=2 * size // 5, stop=9 * size // 10)]
    read = list(read_slices(written, TABLE, own, ["n"]))
    rows = [pl.concat([frame for position, frame in read if position == number])["n"].to_list() for number in range(2)]
    assert rows == [values[: size // 5], values[2 * size // 5 : 9 * size // 10]]


def test_small_tables_are_cut_finely_enough_for_all_workers(written: Lake) -> None:
    assert len(slices_of(written, TABLE, 0, workers=5)) >= 5 * SLICES_PER_WORKER


def test_tables_whose_files_are_not_their_rows_are_refused(written: Lake) -> None:
    with pytest.raises(LookupError, match="version 9"):
        slices_of(written, TABLE, 9, workers=2)
