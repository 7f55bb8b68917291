"""A client that a generator makes of /openapi.json predicts with a key that may do nothing else."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ml_platform.governance.keys import KeyStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer
from ml_platform_tests.serving.feature_services import SERVICE, WEATHER, fill, publish_service
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish, score


@pytest.mark.slow
def test_a_generated_client_predicts(
    settings: Settings, serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_online_store(settings)
    publish(settings, 3)
    fill(settings)
    publish_service(settings)
    _, token = KeyStore(settings.keys_dir).create("job", roles=["predict"])
    server = serve(settings)
    paths = f"/features/{SERVICE}/lookup", f"/features/{WEATHER}/lookup"

    def are_told(client: httpx.Client) -> bool:
        return set(paths) <= client.get("/openapi.json", headers=bearer(token)).json()["paths"].keys()

    server.wait_until(are_told)
    document = tmp_path / "openapi.json"
    document.write_bytes(server.client.get("/openapi.json", headers=bearer(token)).content)
    tools = Path(sys.executable).parent
    options: list[str | Path] = ["--path", document, "--output-path", tmp_path / "made", "--meta", "none"]
    subprocess.run(
        [tools / "openapi-python-client", "generate", *options],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = importlib.import_module("made")
    predict = importlib.import_module(f"made.api.predict.predict_{MODEL}")
    row = importlib.import_module("made.models").ARowForFlightDelay.from_dict(ROW)
    look_up = importlib.import_module(f"made.api.features.look_up_{WEATHER}")
    keys = importlib.import_module("made.models").KeysOfWeatherHere.from_dict({"origin": "EWR"})
    with made.AuthenticatedClient(base_url=server.url, token=token) as client:
        answer = predict.sync_detailed(client=client, body=row, features=False)
        looked_up = look_up.sync_detailed(client=client, body=keys)
    assert looked_up.status_code == 200, looked_up.content
    assert json.loads(looked_up.content)["rows"][0]["features"] == {"temp": 39.5, "visib": None}
    assert answer.status_code == 200, answer.content
    assert answer.parsed.version == 3
    assert answer.parsed.predictions[0].probability == pytest.approx(score(3, ROW))
