"""What a project adds to its server: hooks around predictions, routes, middleware; from a server as it is run."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.prediction.hooks import HookRequest, Hooks
from ml_platform.serving.prediction.responses import Prediction
from ml_platform.settings import Settings
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.serving.conftest import Server, start_server
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish, score

PATH = f"/predict/{MODEL}"
REQUEST = HookRequest("m", "request-1", None)
APP = '''
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ml_platform.serving.app import create_app
from ml_platform.serving.prediction.hooks import HookRequest, Hooks, Row
from ml_platform.serving.prediction.responses import Prediction

hooks = Hooks()


@hooks.before("flight_delay")
def code_of_airline(rows: list[Row], request: HookRequest) -> list[Row]:
    for row in rows:
        if row.get("carrier") == "??":
            raise ValueError("carrier: '??' is no airline")
        if row.get("carrier") == "crash":
            raise RuntimeError("the secret reason")
        if row.get("carrier") == "lost":
            return []
    return [{**row, "carrier": {"United": "UA"}.get(row["carrier"], row["carrier"])} for row in rows]


@hooks.after("flight_delay")
def in_words(predictions: list[Prediction], request: HookRequest) -> list[Prediction]:
    for prediction in predictions:
        if prediction.id == "unsendable":
            prediction.extras = {"when": object()}
        elif prediction.id == "torn":
            raise KeyError("torn")
        else:
            prediction.extras = {"band": "high" if prediction.probability > 0.5 else "low", "for": request.caller}
    return predictions


class Stamp:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-stamp", b"mine")]
            await send(message)

        await self.app(scope, receive, stamped)


app = create_app(hooks=hooks)


@app.get("/airlines", tags=["mine"])
async def airlines() -> dict[str, str]:
    """Names of airlines."""
    return {"United": "UA"}
'''


@pytest.fixture(scope="module")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    (folder / "own_app.py").write_text(APP)
    (folder / "own_middleware.py").write_text(f"{APP}\n\napp.add_middleware(Stamp)\n")
    return folder


def start(settings: Settings, folder: Path, app: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("ML_PLATFORM_SERVING_APP", app)
    return start_server(settings)


@pytest.fixture(scope="module")
def server(module_settings: Settings, app_folder: Path) -> Iterator[Server]:
    fill_online_store(module_settings)
    publish(module_settings, 3)
    with pytest.MonkeyPatch.context() as monkeypatch:
        server = start(module_settings, app_folder, "own_app:app", monkeypatch)
    yield server
    server.stop()


def logged(settings: Settings) -> int:
    return sum(path.read_bytes().count(b"\n") for path in settings.inference_log_dir.rglob("*.jsonl"))


def test_rows_are_scored_as_the_hook_returns_them_and_predictions_carry_its_extras(client: httpx.Client) -> None:
    answer = client.post(PATH, json={**ROW, "carrier": "United"}).json()
    [prediction] = answer["predictions"]
    assert prediction["probability"] == pytest.approx(score(3, ROW), abs=1e-12)
    assert prediction["extras"] == {"band": "high" if prediction["probability"] > 0.5 else "low", "for": "127.0.0.1"}
    many = client.post(PATH, json={"rows": [{**ROW, "carrier": "United"}, ROW] * 30}).json()["predictions"]
    assert len(many) == 60
    assert {one["probability"] for one in many} == {prediction["probability"]}


@pytest.mark.parametrize("rows", [1, 1000])
def test_hooks_run_for_small_and_large_requests_of_other_protocols(client: httpx.Client, rows: int) -> None:
    body = {"dataframe_records": [{**ROW, "carrier": "United"}] * rows}
    answer = client.post(f"/models/{MODEL}/invocations", json=body).json()
    assert len(answer["predictions"]) == len(answer["extras"]) == rows
    assert answer["probabilities"][0] == pytest.approx(score(3, ROW), abs=1e-12)
    assert answer["extras"][0]["for"] == "127.0.0.1"


def test_explanations_and_features_come_with_the_extras(client: httpx.Client) -> None:
    [prediction] = client.post(f"{PATH}?features=true", json={**ROW, "carrier": "United"}).json()["predictions"]
    assert prediction["features"]["carrier"] == "UA"
    assert "band" in prediction["extras"]


def test_a_value_error_of_a_hook_refuses_the_request_in_its_words(client: httpx.Client) -> None:
    refused = client.post(PATH, json={**ROW, "carrier": "??"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")
    assert "carrier: '??' is no airline" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "change", [{"carrier": "crash"}, {"carrier": "lost"}, {"flight_id": "torn"}, {"flight_id": "unsendable"}]
)
@pytest.mark.parametrize("rows", [None, 1500])
def test_a_failing_hook_is_answered_whole_and_nothing_is_logged_as_predicted(
    module_settings: Settings, client: httpx.Client, change: dict[str, str], rows: int | None
) -> None:
    before = logged(module_settings)
    row = {**ROW, **change}
    failed = client.post(PATH, json=row if rows is None else {"rows": [ROW] * rows + [row]})
    assert failed.status_code == 500
    error = failed.json()["error"]
    assert error["code"] == "hook_failed"
    assert error["request_id"] == failed.headers["x-request-id"]
    assert "secret" not in failed.text
    assert logged(module_settings) == before
    assert client.post(PATH, json=ROW).status_code == 200


def test_bodies_that_are_wrong_are_told_as_without_a_hook(client: httpx.Client) -> None:
    assert client.post(PATH, content=b'{"carrier": ').json()["error"]["code"] == "invalid_json"
    missing = client.post(PATH, json={**ROW, "origin": None})
    assert "origin" in missing.json()["error"]["message"]
    assert client.post(PATH, json={"rows": [1, 2]}).status_code == 422


def test_own_routes_are_served_described_and_guarded_like_the_others(client: httpx.Client) -> None:
    assert client.get("/airlines").json() == {"United": "UA"}
    assert "/airlines" in client.get("/openapi.json").json()["paths"]
    assert client.get("/airlines", headers={"Host": "evil.example"}).status_code == 421


def test_own_middleware_sees_predictions_too(
    settings: Settings, app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_online_store(settings)
    publish(settings, 3)
    server = start(settings, app_folder, "own_middleware:app", monkeypatch)
    try:
        answer = server.client.post(PATH, json=ROW)
        assert (answer.status_code, answer.headers["x-stamp"]) == (200, "mine")
        assert server.client.get("/models").headers["x-stamp"] == "mine"
    finally:
        server.stop()


def test_the_example_in_the_docs_is_an_app(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (PROJECT_ROOT / "docs" / "how-to" / "serving" / "hooks.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n# serving/app\.py\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example_of_docs.py").write_text(example)
    fill_online_store(settings)
    publish(settings, 3)
    server = start(settings, tmp_path, "example_of_docs:app", monkeypatch)
    try:
        [prediction] = server.client.post(PATH, json={**ROW, "carrier": "United"}).json()["predictions"]
        assert prediction["extras"] == {"band": "rebook" if prediction["probability"] > 0.6 else "wait"}
        assert server.client.get("/airlines").json() == {"United": "UA"}
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("app", "reason"),
    [("no_such_app:app", "no_such_app"), ("own_app:nothing", "nothing"), ("own_app:hooks", "of type Hooks")],
)
def test_what_is_no_app_stops_the_start_in_words(
    settings: Settings, app_folder: Path, monkeypatch: pytest.MonkeyPatch, app: str, reason: str
) -> None:
    with pytest.raises(AssertionError, match="ML_PLATFORM_SERVING_APP: wanted") as failed:
        start(settings, app_folder, app, monkeypatch)
    assert reason in str(failed.value)


def fails(rows: list[dict[str, Any]], request: HookRequest) -> Any:
    raise OSError("no such file")


@pytest.mark.parametrize(
    "hook", [lambda rows, request: None, lambda rows, request: [1], lambda rows, request: rows * 2, fails]
)
def test_a_hook_must_return_a_row_for_each_row(hook: Callable[..., Any]) -> None:
    hooks = Hooks()
    hooks.before("m")(hook)
    with pytest.raises(Refused) as refused:
        hooks.prepare(b'{"rows": [{"a": 1}]}', REQUEST)
    assert (refused.value.status, refused.value.code) == (500, "hook_failed")


def test_a_hook_may_name_row_and_field_of_what_is_wrong() -> None:
    hooks = Hooks()

    @hooks.before("m")
    def check(rows: list[dict[str, Any]], request: HookRequest) -> list[dict[str, Any]]:
        raise InvalidRequest(422, [Problem(1, "a", "wanted a prime number, found 4")])

    with pytest.raises(InvalidRequest, match="row 1, a: wanted a prime number, found 4"):
        hooks.prepare(b'{"rows": [{"a": 3}, {"a": 4}]}', REQUEST)


def test_there_is_one_hook_of_a_kind_for_a_model() -> None:
    hooks = Hooks()
    hooks.after("m")(lambda predictions, request: predictions)
    with pytest.raises(ValueError, match="already"):
        hooks.after("m")(lambda predictions, request: predictions)
    assert hooks.finish([Prediction(prediction=1.0)], REQUEST) == [Prediction(prediction=1.0)]
    assert hooks.models == {"m"}
