"""What may be said of a run of AutoML: everything that is not said is decided from the data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from pydantic import TypeAdapter

from ml_platform.automl.documents import SplitKind
from ml_platform.spec.types import Task

VALIDATION_SHARE = 0.15
HOLDOUT_SHARE = 0.2


@dataclass(frozen=True)
class AutomlOptions:
    """Options of a run.

    Attributes
    ----------
    target
        Label column of a table; a model has its own.
    id, time, group
        Columns that identify a row, say when it was, and name the entity whose rows stay together; guessed when None.
    task, metric
        Guessed from the label when None.
    positive
        Binary: the value that stands for true, as text; guessed when None.
    split
        Kind of the split; by time where there is a time, by group where entities repeat, stratified else.
    holdout
        Share of the rows, or the first day (or instant, UTC) of the holdout of a split by time.
    drop
        Columns that are no inputs.
    allow
        Inputs that are known at the instant of prediction although they predict the label nearly alone.
    families
        Families to try; all that are installed when empty.
    minutes
        Budget of the whole run.
    top
        Trials on the leaderboard, of every family the best at least.
    seed
        Of the split, the search and every trial.
    horizon
        Periods ahead of a forecast; None for rows that are no series.
    season
        Forecast: periods of a season; the frequency's usual one when None.
    known_ahead
        Forecast: columns whose values are known in advance.
    """

    target: str = ""
    id: str | None = None
    time: str | None = None
    group: str | None = None
    task: Task | None = None
    metric: str | None = None
    positive: str | None = None
    split: SplitKind | None = None
    holdout: str | None = None
    drop: Sequence[str] = field(default_factory=tuple)
    allow: Sequence[str] = field(default_factory=tuple)
    families: Sequence[str] = field(default_factory=tuple)
    minutes: float = 10.0
    top: int = 10
    seed: int = 0
    horizon: int | None = None
    season: int | None = None
    known_ahead: Sequence[str] = field(default_factory=tuple)

    @property
    def holdout_start(self) -> datetime | None:
        """First instant of the holdout (UTC); None where a share is wanted (raises ValueError)."""
        if self.holdout is None or _share(self.holdout) is not None:
            return None
        try:
            if len(self.holdout) == len("2024-01-01"):
                day = date.fromisoformat(self.holdout)
                return datetime(day.year, day.month, day.day, tzinfo=UTC)
            instant = datetime.fromisoformat(self.holdout)
        except ValueError:
            raise ValueError(
                f"--holdout wants a share of the rows (0.2) or the first day of the holdout (2024-10-01), found "
                f"{self.holdout!r}"
            ) from None
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)

    @property
    def holdout_share(self) -> float:
        """Share of the rows in the holdout (raises ValueError)."""
        share = HOLDOUT_SHARE if self.holdout is None else _share(self.holdout)
        if share is None:
            return HOLDOUT_SHARE
        if not 0.01 <= share <= 0.6:
            raise ValueError(f"--holdout wants a share from 0.01 to 0.6, found {share:g}")
        return share


def checked_options(**given: object) -> AutomlOptions:
    """Make options of values that come from outside (raises pydantic.ValidationError, naming each that is wrong)."""
    return TypeAdapter(AutomlOptions).validate_python(given)


def _share(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
