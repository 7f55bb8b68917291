"""Tables as people have them, made of chance alone, so that something can be learned and nothing leaks."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl


def calls(rows: int = 400) -> pl.DataFrame:
    """Calls of a bank: no time, an outcome in words, and how long each call took, which nobody knows before it."""
    chance = random.Random(5)
    table: dict[str, list[Any]] = {name: [] for name in ("client_id", "age", "job", "balance", "duration", "y")}
    for number in range(rows):
        bought = chance.random() < 0.3
        table["client_id"].append(f"c-{number:05}")
        table["age"].append(chance.randrange(18, 90))
        table["job"].append(chance.choice(["admin.", "services", "retired"]))
        table["balance"].append(round(chance.gauss(1500 if bought else 500, 900), 2))
        table["duration"].append(round(abs(chance.gauss(600 if bought else 150, 150))))
        table["y"].append("subscribed" if bought else "no")
    return pl.DataFrame(table)


def readings(hours: int = 24 * 150) -> pl.DataFrame:
    """Readings of a machine, one an hour: a time, a number to predict, a text that is always the same."""
    chance = random.Random(6)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    load = [chance.uniform(0, 10) for _ in range(hours)]
    return pl.DataFrame(
        {
            "read_at": [start + timedelta(hours=hour) for hour in range(hours)],
            "load": load,
            "shift": [hour % 3 for hour in range(hours)],
            "plant": ["north"] * hours,
            "power": [3 * value + chance.gauss(0, 4) for value in load],
        }
    )
