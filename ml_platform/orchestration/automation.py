"""Whether schedules and sensors run in this environment, unless somebody has switched one in Dagster's UI."""

import dagster as dg

from ml_platform.settings import Settings


def schedule_status() -> dg.DefaultScheduleStatus:
    """Give the status that schedules have by default, from the setting `schedules`."""
    return dg.DefaultScheduleStatus.RUNNING if Settings().schedules else dg.DefaultScheduleStatus.STOPPED


def sensor_status() -> dg.DefaultSensorStatus:
    """Give the status that sensors which start work have by default, from the setting `sensors`."""
    return dg.DefaultSensorStatus.RUNNING if Settings().sensors else dg.DefaultSensorStatus.STOPPED
