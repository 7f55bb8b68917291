"""Finds ids that more than one scored row has, by files of sorted hashes, of which some are in memory at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from ml_platform.inference.parts import Files, PartResult

_BUCKETS = 32  # stretches of the hashes' range that are looked at one after another
_MOST = 1_000  # hashes whose ids are looked up
_SHOWN = 3
_BYTES = 8  # of a hash


class RepeatedIds(ValueError):
    """Rows have the id of another row."""


def check_ids(results: Sequence[PartResult], parts: tuple[str, Files], source: str, *, hashes: Sequence[Path]) -> None:
    """Refuse scored rows of which some have the id of another.

    Parameters
    ----------
    results, parts
        The parts, and where their rows are.
    source
        Name of the source, for the message.
    hashes
        Files with the sorted hashes of the parts' ids (uint64).

    Raises
    ------
    RepeatedIds
        With the number of ids that are repeated, some of them, and what to do.
    """
    suspects = [hash_ for bucket in _repeated(hashes) for hash_ in bucket.tolist()]
    if not suspects:
        return
    folder, files = parts
    wanted = pl.Series(suspects[:_MOST], dtype=pl.UInt64)
    counts: Counter[str] = Counter()
    for result in results:
        if result.path is not None:
            with files.system().open_input_file(f"{folder}/{result.path}" if folder else result.path) as opened:
                ids = pl.read_parquet(opened.read(), columns=["id"]).to_series()
            counts.update(ids.filter(ids.hash().is_in(wanted.implode())).to_list())
    if repeated := [one for one, count in counts.items() if count > 1]:
        number = len(suspects) if len(suspects) > _MOST else len(repeated)
        shown = ", ".join(map(repr, sorted(repeated)[:_SHOWN]))
        raise RepeatedIds(
            f"{source} gives {number:,} id{'s' if number > 1 else ''} to more than one row, e.g. {shown}: give "
            "each row its own, name another column by --id, or say --duplicates keep. What is scored "
            "is kept: the same command goes on from there"
        )


def _repeated(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """Hashes that occur more than once, a stretch of their range at a time."""
    ends = np.array([(2**64 * number) // _BUCKETS for number in range(1, _BUCKETS)], dtype=np.uint64)
    cuts = []
    for file in files:
        count = file.stat().st_size // _BYTES
        places = np.searchsorted(np.memmap(file, dtype=np.uint64, mode="r"), ends).tolist() if count else []
        cuts.append([0, *places, count] if count else [0] * (_BUCKETS + 1))
    for bucket in range(_BUCKETS):
        some = [
            np.fromfile(file, dtype=np.uint64, offset=cut[bucket] * _BYTES, count=cut[bucket + 1] - cut[bucket])
            for file, cut in zip(files, cuts, strict=True)
        ]
        if some:
            together = np.sort(np.concatenate(some))
            yield np.unique(together[1:][together[1:] == together[:-1]])
