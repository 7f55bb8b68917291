"""Finds ids that more than one scored row has, by sorted hashes of each part, without holding the ids themselves."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from ml_platform.inference.parts import Files, PartResult

_BUCKETS = 32  # stretches of the hashes' range that are looked at one after another
_MOST = 1_000  # hashes whose ids are looked up
_SHOWN = 3


class RepeatedIds(ValueError):
    """Rows have the id of another row."""


def check_ids(results: Sequence[PartResult], parts: tuple[str, Files], source: str) -> None:
    """Refuse scored rows of which some have the id of another.

    Raises
    ------
    RepeatedIds
        With the number of ids that are repeated, some of them, and what to do.
    """
    suspects = [hash_ for bucket in _repeated(results) for hash_ in bucket.tolist()]
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


def _repeated(results: Sequence[PartResult]) -> Iterator[np.ndarray]:
    """Hashes that occur more than once, a stretch of their range at a time."""
    hashes = [np.frombuffer(result.id_hashes, dtype=np.uint64) for result in results if result.id_hashes]
    ends = [(2**64 * number) // _BUCKETS for number in range(1, _BUCKETS)]
    cuts = [[0, *np.searchsorted(one, np.array(ends, dtype=np.uint64)).tolist(), len(one)] for one in hashes]
    for bucket in range(_BUCKETS):
        some = [one[cut[bucket] : cut[bucket + 1]] for one, cut in zip(hashes, cuts, strict=True)]
        if some:
            together = np.sort(np.concatenate(some))
            yield np.unique(together[1:][together[1:] == together[:-1]])
