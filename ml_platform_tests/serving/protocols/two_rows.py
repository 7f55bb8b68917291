"""Two rows that the protocols are asked about, and where MLflow's clients ask."""

from typing import Any

from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW

ROWS = [ROW, {**ROW, "flight_id": "second", "tailnum": None, "distance": 333.5}]
COLUMNS = [field.name for field in INPUTS]
MLFLOW_PATHS = ("/invocations", f"/models/{MODEL}/invocations", f"/serving-endpoints/{MODEL}/invocations")


def as_split() -> dict[str, Any]:
    return {"columns": COLUMNS, "data": [[row.get(name) for name in COLUMNS] for row in ROWS]}
