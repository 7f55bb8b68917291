"""Many wall clocks at once against the standard library's, one by one."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from ml_platform.features.expressions.columns import EPOCH, microseconds
from ml_platform.features.expressions.wall_clock import WallClock


def read(clock: WallClock, instants: list[datetime]) -> np.ndarray | None:
    found = microseconds(instants)
    return clock.read(found, (int(found.min()), int(found.max())))


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"])
def test_every_hour_of_a_year_is_that_of_the_standard_library(zone: str) -> None:
    clock = WallClock(zone)
    instants = [datetime(2013, 1, 1, 0, 17, 3, 9, tzinfo=UTC) + timedelta(hours=hour) for hour in range(365 * 24)]
    wanted = [instant.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC) for instant in instants]
    changed = [instant for instant in instants if read(clock, [instant]) is None]
    # Lord Howe Island puts its clocks forward in the middle of an hour of UTC.
    assert len(changed) == (zone == "Australia/Lord_Howe")
    for _ in range(2):  # filled in, and known
        kept = [number for number, instant in enumerate(instants) if instant not in changed]
        found = read(clock, [instants[number] for number in kept])
        assert found is not None
        assert found.tolist() == microseconds([wanted[number] for number in kept]).tolist()


@pytest.mark.parametrize(("year", "is_kept"), [(1899, False), (1900, True), (2099, True), (2100, False)])
def test_only_the_years_that_are_kept_are_told(year: int, is_kept: bool) -> None:
    clock = WallClock("Europe/Berlin")
    for instant in (datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 31, 23, 59, tzinfo=UTC)):
        found = read(clock, [instant])
        assert (found is not None) is is_kept
        if found is not None:
            local = instant.astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=UTC)
            assert EPOCH + timedelta(microseconds=int(found[0])) == local
