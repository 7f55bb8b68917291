"""Small tables of series, and the plan of a forecast of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ml_platform.automl.documents import Plan
from ml_platform.automl.forecast.plan import plan_forecast
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plan import TableSource
from ml_platform.lake.storage.tables import Lake

START = datetime(2024, 1, 1, tzinfo=UTC)
WEEK = (1.0, 0.9, 0.95, 1.0, 1.3, 1.6, 0.7)


def starts(every: str, periods: int) -> list[datetime]:
    """First instants of so many periods."""
    if every == "month":
        return [datetime(2010 + number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in range(periods)]
    hours = {"hour": 1, "day": 24, "week": 168}[every]
    return [START + timedelta(hours=hours * number) for number in range(periods)]


def sales(periods: int = 150, stores: str = "ab", every: str = "day", noise: float = 1.0) -> pl.DataFrame:
    """Rows (periods × stores) with a season of seven, a trend, a promotion and another number."""
    rng = np.random.default_rng(5)
    frames = []
    for place, store in enumerate(stores):
        promo = (rng.random(periods) < 0.2).astype(int)
        mean = (20 + 10 * place + 0.05 * np.arange(periods)) * np.resize(WEEK, periods) + 4 * promo
        frames.append(
            pl.DataFrame(
                {
                    "day": starts(every, periods),
                    "store": [store] * periods,
                    "promo": promo,
                    "visits": rng.normal(size=periods),
                    "sales": mean + noise * rng.normal(size=periods),
                }
            )
        )
    return pl.concat(frames)


def planned(rows: pl.DataFrame, folder: Path | None = None, **options: Any) -> Plan:
    """Plan a forecast; with a folder its table is stored there, so that rows can be read."""
    given = {"target": "sales", "time": "day", "group": "store", "horizon": 14, **options}
    uri, version = "/nowhere", 0
    if folder is not None:
        lake = Lake(str(folder))
        version, uri = lake.replace("raw/sales", rows), lake.location("raw/sales")
    source = TableSource("sales", "raw/sales", "raw/sales", uri, version, rows)
    return plan_forecast(source, AutomlOptions(**given))


def decided(plan: Plan) -> dict[str, str]:
    """What was decided → the decision and its reason."""
    return {one.what: f"{one.value}: {one.why}" for one in plan.decisions}
