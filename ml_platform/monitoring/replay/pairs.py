"""Both versions' answers to the same logged rows, batch by batch, with the memory of one batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from ml_platform.inference.log import SHADOW
from ml_platform.instants import earlier
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.replay.contestant import Contestant, NotReplayable
from ml_platform.monitoring.replay.tally import Tally
from ml_platform.registry.manifest import Label
from ml_platform.training.evaluation.contenders import aligned

BATCH_ROWS = 50_000
_KEYS = ["request_id", "row"]


@dataclass(frozen=True)
class Pair:
    """Rows that both answered with finite scores.

    Attributes
    ----------
    rows
        `id`, `as_of`, `scored_at`, `sample_weight`.
    champion, challenger
        Scores (rows,) or (rows × classes), over the same classes.
    """

    rows: pl.DataFrame
    champion: np.ndarray
    challenger: np.ndarray


def window_of(lake: Lake, model: str, days: int) -> tuple[pl.LazyFrame, datetime, datetime] | None:
    """Logged rows of the last days before the newest answer; None without any row."""
    table = f"inference_log/{model}"
    if not lake.exists(table):
        return None
    log = lake.read(table)
    newest = log.select(pl.col("scored_at").max()).collect(engine="streaming").item()
    if newest is None:
        return None
    since = earlier(newest, timedelta(days=days))
    return log.filter(pl.col("scored_at") > since), since, newest


def replayed_pairs(
    log: pl.LazyFrame, champion: Contestant, challenger: Contestant, classes: tuple[Label, ...], tally: Tally
) -> Iterator[Pair]:
    """Let both versions answer logged rows; the champion's own answers are taken as they were given."""
    for batch in log.collect_batches(chunk_size=BATCH_ROWS, maintain_order=False, engine="streaming"):
        for rows in _weighted(batch).partition_by("digest", maintain_order=True):
            served_by = rows.get_column("digest")[0]
            tally.logged += rows.height
            tally.logged_weight += float(rows.get_column("sample_weight").sum())
            try:
                own = challenger.answer(rows, served_by)
                scores = own.scores, _of_champion(rows, champion, served_by)
            except NotReplayable as error:
                tally.incomparable[str(error)] += rows.height
                continue
            tally.refused += int(own.refused.sum())
            tally.refusals += own.refusals
            tally.flagged += own.flagged
            tally.answered += int((~own.refused).sum())
            yield from _finite(rows, scores[1], scores[0], (champion, challenger), classes, own.refused, tally)


def shadow_pairs(  # noqa: PLR0917 - as `replayed_pairs`
    lake: Lake,
    model: str,
    log: pl.LazyFrame,
    champion: Contestant,
    challenger: Contestant,
    versions: tuple[int, int],
    classes: tuple[Label, ...],
    tally: Tally,
) -> Iterator[Pair]:
    """Join the champion's logged answers with those that the challenger gave as a shadow, day by day."""
    table = f"inference_log/{model}{SHADOW}"
    if not lake.exists(table):
        return
    shadows = lake.read(table).filter(pl.col("model_version") == versions[1])
    live = log.filter(pl.col("model_version") == versions[0])
    dates = live.select(pl.col("date").unique()).collect(engine="streaming").get_column("date").sort()
    for date in dates:
        of_day = _weighted(live.filter(pl.col("date") == date).collect(engine="streaming"))
        answers = shadows.filter(pl.col("date") == date).collect(engine="streaming").unique(_KEYS, keep="last")
        tally.logged += of_day.height
        tally.logged_weight += float(of_day.get_column("sample_weight").sum())
        keys = of_day.select(_KEYS).join(answers.select(_KEYS), on=_KEYS, how="semi")
        if lost := of_day.height - keys.height:
            tally.incomparable["the shadow did not answer: it was not up, had too much to do, or refused them"] += lost
        rows = of_day.join(keys, on=_KEYS, how="inner").sort(_KEYS)
        same = answers.join(keys, on=_KEYS, how="inner").sort(_KEYS)
        if rows.is_empty():
            continue
        tally.answered += rows.height
        given = challenger.answer(same, challenger.scorer.digest)
        tally.flagged += given.flagged
        scores = given.scores if challenger.manifest.task == "multiclass" else _recorded(same)
        theirs = _of_champion(rows, champion, champion.scorer.digest)
        yield from _finite(
            rows, theirs, scores, (champion, challenger), classes, np.zeros(rows.height, dtype=bool), tally
        )


def _weighted(rows: pl.DataFrame) -> pl.DataFrame:
    if "sample_weight" not in rows.columns:  # of before a log could be sampled
        return rows.with_columns(sample_weight=pl.lit(1.0))
    return rows.with_columns(pl.col("sample_weight").fill_null(1.0))


def _recorded(rows: pl.DataFrame) -> np.ndarray:
    return rows.get_column("score").cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _of_champion(rows: pl.DataFrame, champion: Contestant, served_by: str) -> np.ndarray:
    if served_by == champion.scorer.digest and champion.manifest.task != "multiclass":
        return _recorded(rows)  # of several classes, the log has the score of the first alone
    return champion.answer(rows, served_by).scores


def _finite(  # noqa: PLR0917 - private
    rows: pl.DataFrame,
    champion: np.ndarray,
    challenger: np.ndarray,
    both: tuple[Contestant, Contestant],
    classes: tuple[Label, ...],
    refused: np.ndarray,
    tally: Tally,
) -> Iterator[Pair]:
    """Add the rows with finite scores of both to the tally, and give them."""
    if classes:
        champion = aligned(champion, both[0].manifest.classes, classes)
        challenger = aligned(challenger, both[1].manifest.classes, classes)
    finite = np.isfinite(champion.reshape(rows.height, -1)).all(axis=1)
    finite &= np.isfinite(challenger.reshape(rows.height, -1)).all(axis=1)
    tally.unscored += int((~finite & ~refused).sum())
    kept = rows.filter(pl.Series(finite))
    champion, challenger = champion[finite], challenger[finite]
    decided = _decided(champion, both[0]), _decided(challenger, both[1])
    tally.add(champion, challenger, kept.get_column("sample_weight").to_numpy(), decided)
    if kept.height:
        yield Pair(kept.select("id", "as_of", "scored_at", "sample_weight"), champion, challenger)


def _decided(scores: np.ndarray, contestant: Contestant) -> np.ndarray:
    """Decision of each row: a flag, the position of a class, or 0 for a regression, which decides nothing."""
    if contestant.manifest.task == "regression":
        return np.zeros(len(scores))
    if contestant.manifest.task == "multiclass":
        return scores.argmax(axis=1) if len(scores) else np.zeros(0, dtype=np.int64)
    threshold = contestant.manifest.threshold
    return scores >= (0.5 if threshold is None else threshold)
