"""How a view may be computed day by day: what `incremental` declares."""

from datetime import date

from pydantic import Field

from ml_platform.spec.types import Duration, Strict

DAY_COLUMN = "event_date"  # UTC day of the event time, the partition of an incremental view's table


class Incremental(Strict):
    """A declaration by which a view can be computed day by day.

    A row of the view at an instant t depends only on source rows with t − look_back < time ≤ t, and on the newest time
    of a source, as the end of its rows.
    """

    look_back: Duration = Field(description="How far before its event time a row of the view needs source rows.")
    times: dict[str, str] = Field(
        min_length=1, description="Source table → column with the instant, or the day (from midnight UTC), of its rows."
    )


Span = tuple[date, date | None]  # first day, and the day after the last; None: no end
