"""What may be spent, and what one step may use, as `cost.yaml` and a model's `defs.yaml` say it."""

from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from ml_platform.spec.types import Declared, PositiveDuration

Period = Literal["day", "week", "month"]
Action = Literal["warn", "queue", "refuse"]
AMOUNTS = ("cpu_hours", "price", "memory_gib_hours", "run_hours")


class StepLimits(Declared):
    """What one step of a run may use, with all processes that it starts; it is stopped when it uses more."""

    cpu: PositiveDuration | None = Field(None, description="CPU time of all its threads and processes, e.g. '2 hours'.")
    memory_gib: float | None = Field(None, gt=0, description="Memory (PSS) in GiB.")
    time: PositiveDuration | None = Field(None, description="Time from its begin, e.g. '90 minutes'.")

    def tightened(self, other: "StepLimits") -> "StepLimits":
        """Return the smaller of each limit of two."""
        return StepLimits(
            **{
                name: min((one for one in (getattr(self, name), getattr(other, name)) if one is not None), default=None)
                for name in StepLimits.model_fields
            }
        )


class Budget(Declared):
    """How much may be used in a period, and what follows when that is used up."""

    period: Period = Field("month", description="Calendar day, week from Monday, or month, in UTC.")
    cpu_hours: float | None = Field(None, gt=0, description="CPU time in hours.")
    price: float | None = Field(None, gt=0, description="Price, in the currency of `cost.yaml`.")
    memory_gib_hours: float | None = Field(None, gt=0, description="Memory (PSS) times time, in GiB hours.")
    run_hours: float | None = Field(None, gt=0, description="Time that runs took, in hours.")
    warn_at: float = Field(0.8, gt=0, le=1, description="Share of an amount from which an alert warns.")
    action: Action = Field(
        "warn",
        description="What follows once an amount is used up: an alert (`warn`); runs of models wait in Dagster's queue "
        "until the period is over (`queue`); runs fail as they begin (`refuse`).",
    )

    @model_validator(mode="after")
    def _has_an_amount(self) -> Self:
        if all(getattr(self, name) is None for name in AMOUNTS):
            raise ValueError(f"limits nothing: add one of {', '.join(AMOUNTS)}")
        return self

    def amounts(self) -> dict[str, float]:
        """Return what is limited, and how."""
        return {name: value for name in AMOUNTS if (value := getattr(self, name)) is not None}


class ModelBudget(Declared):
    """A model's own budget and limits."""

    spending: Budget | None = Field(None, description="What the model may use in a period; without bounds when absent.")
    step: StepLimits = Field(StepLimits(), description="What each step of its runs may use.")


def period_of(period: Period, now: datetime) -> tuple[datetime, datetime]:
    """Return begin and end of the calendar period, in UTC, that an instant is in.

    Examples
    --------
    >>> begin, end = period_of("month", datetime(2026, 12, 5, tzinfo=UTC))
    >>> begin.date().isoformat(), end.date().isoformat()
    ('2026-12-01', '2027-01-01')
    """
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day, day + timedelta(days=1)
    if period == "week":
        begin = day - timedelta(days=day.weekday())
        return begin, begin + timedelta(days=7)
    begin = day.replace(day=1)
    return begin, (begin + timedelta(days=32)).replace(day=1)
