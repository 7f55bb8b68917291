"""The champion's labelled answers of the newest days, as arrays: what calibration and intervals are renewed by."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ml_platform.instants import earlier
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.performance.answers import Answers, answers_of
from ml_platform.monitoring.performance.labelled_rows import known_labels, labelled_rows, rescored_rows
from ml_platform.monitoring.scored_rows import newest_score
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.guardrails import single_columns
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
_LATEST = timedelta(days=120)  # labels that are later than this are waited for, and do not count before


@dataclass(frozen=True)
class LabelledAnswers:
    """Answers with labels, by day, and how long labels take."""

    answers: Answers
    late_days: int  # whole days between the newest answers and the newest that have labels
    notes: tuple[str, ...]  # what a reader must know of the rows

    @property
    def days(self) -> list[int]:
        """Days (since 1970, UTC) that have labels, in order."""
        return np.unique(self.answers.days).tolist()

    def of_days(self, first: int, last: int) -> Answers:
        """Answers of days from `first` to `last`, both included."""
        chosen = (self.answers.days >= first) & (self.answers.days <= last)
        one = self.answers
        return replace(
            one,
            y=one.y[chosen],
            score=one.score[chosen],
            weights=one.weights[chosen],
            days=one.days[chosen],
            groups=one.groups.filter(pl.Series(chosen)) if one.groups.width else one.groups,
        )


def guarded_columns(spec: ModelSpec) -> tuple[str, ...]:
    """Columns whose groups guardrails hold to a bound."""
    promotion, fairness = spec.promotion, spec.promotion.guardrails.fairness
    return single_columns((*promotion.slices, *(fairness.columns if fairness else ())))


def labelled_answers(  # noqa: PLR0917 - as `rescored_rows`
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    store: ReleaseStore,
    version: int,
    scorer: "Scorer",
    *,
    span: timedelta,
    until: datetime | None = None,
) -> LabelledAnswers | None:
    """Answers of a version with labels that are known, those of other versions scored by it where it did not answer.

    Parameters
    ----------
    lake, spec, folder, store
        Where answers and labels are; the model, and the folder of its spine; its versions.
    version, scorer
        The version, and its bundle.
    span
        How far back from the newest labelled row answers are looked at; none from before the end of its training.
    until
        Only answers and labels up to then (UTC); all when None.

    Returns
    -------
    LabelledAnswers | None
        None where nothing was answered, or no answer has a label.
    """
    newest = newest_score(lake, spec.name)
    if newest is None:
        return None
    end = newest if until is None else min(until, newest)
    groups = guarded_columns(spec)
    labels = known_labels(lake, spec, folder, by=until, groups=groups)
    joined = labelled_rows(lake, spec, labels, since=earlier(end, span + _LATEST), until=end, groups=groups)
    last = joined.filter(pl.col("target").is_not_null()).get_column("as_of").max()
    if not isinstance(last, datetime):
        return None
    trained = datetime.fromisoformat(scorer.manifest.provenance.trained_until)
    start = max(earlier(last, span), trained)
    own = joined.filter(pl.col("model_version") == version, pl.col("as_of") > start)
    again = rescored_rows(lake, spec, store, labels, version, scorer, start, end, groups)
    rows = pl.concat([own, again.rows], how="diagonal_relaxed").filter(pl.col("target").is_not_null())
    if rows.is_empty():
        return None
    answers = answers_of(rows, spec, scorer)
    if not answers.rows:
        return None
    late = (end - _EPOCH) // DAY - int(answers.days.max())
    return LabelledAnswers(answers, late, (*answers.notes(), *again.notes))
