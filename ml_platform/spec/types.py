"""What the values in `defs.yaml` are made of: spans of time, schedules, tags, and objects without unknown keys."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

Task = Literal["binary", "multiclass", "regression"]

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


def _parse_duration(value: Any) -> Any:
    """Read `6 hours`, `30 days`, `90 minutes` beside what pydantic reads (ISO 8601, timedelta)."""
    if not isinstance(value, str):
        return value
    number, _, unit = value.strip().partition(" ")
    if unit.removesuffix("s") in _UNITS and number.replace(".", "", 1).isdigit():
        try:
            return timedelta(seconds=float(number) * _UNITS[unit.removesuffix("s")])
        except OverflowError:
            raise ValueError(f"wanted at most {timedelta.max.days:,} days, found {value!r}") from None
    try:
        return TypeAdapter(timedelta).validate_python(value)
    except ValidationError:
        units = ", ".join(f"{unit}s" for unit in _UNITS)
        raise ValueError(
            f"wanted a number and a unit ({units}), e.g. '6 hours', or ISO 8601, e.g. 'PT6H'; found {value!r}"
        ) from None


def _not_negative(value: timedelta) -> timedelta:
    if value < timedelta(0):
        raise ValueError(f"wanted a span of time that is not negative, found {value}")
    return value


Duration = Annotated[timedelta, BeforeValidator(_parse_duration), AfterValidator(_not_negative)]


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("wanted a span of time longer than 0")
    return value


PositiveDuration = Annotated[Duration, AfterValidator(_positive)]


def duration(span: timedelta) -> str:
    """Say a span in words.

    Examples
    --------
    >>> duration(timedelta(days=7)), duration(timedelta(hours=1)), duration(timedelta(minutes=90))
    ('7 days', '1 hour', '90 minutes')
    """
    seconds = int(span.total_seconds())
    size, unit = next(
        (s, u) for s, u in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")) if not seconds % s
    )
    return f"{seconds // size} {unit}{'' if seconds == size else 's'}"


Cron = Annotated[str, Field(pattern=r"^(@(hourly|daily|weekly|monthly)|([\dA-Z*/,\-]+ +){4}[\dA-Z*/,\-]+)$")]

# What Dagster and MLflow both take as the value of a tag.
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")]


class Strict(BaseModel):
    """Immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Declared(Strict):
    """Base of what a user writes in YAML: a number that is not finite is an error too."""

    model_config = ConfigDict(allow_inf_nan=False)
