"""Two rows that the protocols are asked about, and what they are in columns."""

from typing import Any

from ml_platform_tests.serving.releases import INPUTS, ROW

SECOND = {**ROW, "flight_id": "second", "tailnum": None, "distance": 333.5}
ROWS = [ROW, SECOND]
COLUMNS = [field.name for field in INPUTS]


def as_split() -> dict[str, Any]:
    return {"columns": COLUMNS, "data": [[row.get(name) for name in COLUMNS] for row in ROWS]}
