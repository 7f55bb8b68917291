"""What MLflow's own scoring server makes of a body beside this one: the table in the documentation, row by row."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import start_server
from ml_platform_tests.serving.releases import INPUTS, ROW, fill_online_store, publish

JSON = "application/json"
DOCS = Path(__file__).parents[3] / "docs" / "how-to" / "serving" / "protocols.md"
Ask = Callable[[str, bytes], bool]


def one(**changes: Any) -> bytes:
    return json.dumps({"instances": [{**ROW, "distance": 1400, **changes}]}).encode()


LOCAL = {"scheduled_departure": "2013-07-01T12:00:00", "scheduled_arrival": "2013-07-01T15:30:00"}
# Row of the table → content type, body, whether MLflow answers, whether this server does.
ROWS: dict[str, tuple[str, bytes, bool, bool]] = {
    "a column that is no input": (JSON, one(surplus=1), True, True),
    "`params` other than `interval`, any other member of the body": (
        JSON, json.dumps({"instances": [ROW], "params": {"a": 1}, "b": 2}).encode(), True, True,
    ),
    "1.5 for an integer": (JSON, one(distance=1.5), True, False),
    "a text for a number, a number for a text": (JSON, one(distance="7", dest=7), True, False),
    "a key or a CSV column twice": (JSON, one()[:-3] + b', "distance": 7}]}', True, False),
    "3.0 for an integer": (JSON, one(distance=3.0), True, True),
    "a timestamp without offset": (JSON, one(**LOCAL), True, True),
    "a date alone": (JSON, one(scheduled_departure="2013-07-01", scheduled_arrival="2013-07-02"), True, True),
    "more than 10,000 rows": (JSON, json.dumps({"instances": [{**ROW}] * 10_001}).encode(), True, False),
}  # fmt: skip


@pytest.fixture(scope="module")
def ours(module_settings: Settings) -> Iterator[Ask]:
    """Our server, for a model whose distance is an integer."""
    import msgspec

    fill_online_store(module_settings)
    publish(module_settings, 1, inputs=(*INPUTS[:-1], msgspec.structs.replace(INPUTS[-1], type="integer")))
    server = start_server(module_settings)

    def ask(kind: str, body: bytes) -> bool:
        answer: httpx.Response = server.client.post("/invocations", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (200, 400), answer.text
        return answer.status_code == 200

    yield ask
    server.stop()


@pytest.fixture(scope="module")
def mlflows(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """What `mlflow models serve` calls for each request, for a model of the same inputs."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import scoring_server
    from mlflow.types import ColSpec, Schema

    class Length(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: Any, params: Any = None) -> list[int]:
            return [len(model_input)] * len(model_input)

    kinds = {"string": "string", "timestamp": "datetime", "number": "long"}
    schema = Schema([ColSpec(kinds[field.type], field.name, required=field.required) for field in INPUTS])
    folder = str(tmp_path_factory.mktemp("mlflow") / "model")
    mlflow.pyfunc.save_model(
        folder, python_model=Length(), signature=ModelSignature(schema), pip_requirements=["mlflow"]
    )
    model = mlflow.pyfunc.load_model(folder)

    def ask(kind: str, body: bytes) -> bool:
        try:
            return bool(scoring_server.invocations(body.decode(), kind, model, schema).status == 200)
        except mlflow.exceptions.MlflowException:
            return False

    return ask


@pytest.mark.parametrize("row", ROWS)
def test_both_do_what_the_table_says(ours: Ask, mlflows: Ask, row: str) -> None:
    kind, body, by_mlflow, here = ROWS[row]
    assert (mlflows(kind, body), ours(kind, body)) == (by_mlflow, here)


def test_the_table_has_these_rows() -> None:
    text = DOCS.read_text(encoding="utf-8")
    table = text[text.index("| sent | MLflow's server | here |") :].split("\n\n")[0]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]] != []
    assert {line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]} == set(ROWS)
