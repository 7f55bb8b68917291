"""Several models and what is composed of them, as one worker serves them, in this process."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
import pytest

from ml_platform.features.online.store import OnlineStore
from ml_platform.inference.composition.publish import publish_composition
from ml_platform.inference.log import InferenceLog
from ml_platform.registry.manifest import Golden, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.prediction.hooks import Hooks
from ml_platform.serving.prediction.log_health import LogHealth
from ml_platform.serving.prediction.predictor import PredictionOptions, Predictor
from ml_platform.serving.prediction.responses import Answer
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings
from ml_platform.spec.composition import ComposedEndpointSpec
from ml_platform_tests.serving.in_process import alerts_of, watcher_of
from ml_platform_tests.serving.releases import INPUTS, ROW, bundle


@cache
def plain_bundle(name: str, version: int) -> dict[str, bytes]:
    return bundle(version, model=name)


class ComposedWorld:
    """One worker's parts, over models whose scores tell their versions."""

    def __init__(self, settings: Settings, online: OnlineStore) -> None:
        self.settings, self.store = settings, ReleaseStore(settings.releases_dir)
        self.state, self.metrics, self.hooks = ServingState({}), Metrics(), Hooks()
        self.watcher = watcher_of(settings, online, self.state, self.metrics)
        self.log = InferenceLog(settings.inference_log_dir)
        health = LogHealth(self.log, alerts_of(settings, self.metrics))
        self.predictor = Predictor(self.state, self.log, self.metrics, ServingSettings(), health, hooks=self.hooks)

    def close(self) -> None:
        self.predictor.close()
        self.log.close()

    def alerts(self) -> list[str]:
        """Titles of the alerts that were raised, oldest first."""
        file = self.settings.alerts_dir / "alerts.jsonl"
        return [json.loads(line)["title"] for line in file.read_text().splitlines()] if file.exists() else []

    def release(self, name: str, version: int, **changes: Any) -> None:
        digest = self.register(name, version, **changes)
        self.store.publish(name, [Target(version=version, digest=digest)], reason="for a test", by="pytest")
        self.watcher.poll()

    def split(self, name: str, versions: Mapping[int, Mapping[str, Any]]) -> None:
        """Let versions share the traffic of a model, each made of its changes."""
        digests = {version: self.register(name, version, **changes) for version, changes in versions.items()}
        targets = [Target(version=one, digest=digest, share=1 / len(versions)) for one, digest in digests.items()]
        self.store.publish(name, targets, reason="for a test", by="pytest")
        self.watcher.poll()

    def register(self, name: str, version: int, **changes: Any) -> str:
        files = bundle(version, model=name, **changes) if changes else plain_bundle(name, version)
        golden = msgspec.json.decode(files["golden.json"], type=Golden)
        names = [one.name for one in changes.get("inputs", INPUTS)]
        inputs = tuple({**dict.fromkeys(names), **row} for row in golden.inputs)
        files = {**files, "golden.json": msgspec.json.encode(msgspec.structs.replace(golden, inputs=inputs))}
        digest = self.store.put_bundle(files)
        self.store.register_version(name, version, digest)
        return digest

    def compose(self, name: str, **of: Any) -> None:
        spec = ComposedEndpointSpec.model_validate({"name": name, "description": "Both.", "owner": "team:x", **of})
        publish_composition(self.store, spec, by="pytest", reason="for a test")
        self.watcher.poll()

    def answer(self, name: str, body: Any, request_id: str = "r1", **options: Any) -> Answer:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        asked = PredictionOptions(request_id, "ann", **options)
        return self.predictor.answer_now(self.predictor.slot(name), content, asked)

    def refused(self, name: str, body: Any, **options: Any) -> Refused:
        with pytest.raises(Refused) as refused:
            self.answer(name, body, **options)
        return refused.value

    def logged(self, name: str) -> list[dict[str, Any]]:
        paths = self.settings.inference_log_dir.glob(f"{name}/*.jsonl")
        return [msgspec.json.decode(line) for path in paths for line in path.read_bytes().splitlines()]


def rows_of(count: int, **changes: Any) -> dict[str, Any]:
    rows = [{**ROW, "flight_id": f"f{number}", **changes} for number in range(count)]
    return rows[0] if count == 1 else {"rows": rows}
