"""Three models at one endpoint, in one process: beside the three asked one after another.

    python benchmarks/composed.py [--rounds 7]

300 trees over 30 features each, the inference log on. CPU time of this process, the ways in turn, medians.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from _plain_model import plain_rows, publish_plain
from _results import write_section

from ml_platform.features.online.open import open_online_store
from ml_platform.inference.composition.publish import publish_composition
from ml_platform.inference.log import InferenceLog
from ml_platform.monitoring.alerts.alert import AlertSettings
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.models.last_good import LastKnownGood
from ml_platform.serving.models.release_alerts import ReleaseAlerts
from ml_platform.serving.models.reloader import Watcher
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.prediction.log_health import LogHealth
from ml_platform.serving.prediction.predictor import PredictionOptions, Predictor
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.settings import Settings
from ml_platform.spec.composition import ComposedEndpointSpec

MEMBERS = ("first", "second", "third")
FEEDS = {1: 2000, 100: 100, 1000: 12}  # rows of a request → requests of a turn
COMPOSED = {
    "mean of three": {"ensemble": {"members": dict.fromkeys(MEMBERS, 1)}},
    "one of three for each row": {
        "route": {"by": "category_0", "map": {"value 1": "first", "value 2": "second"}, "default": "third"}
    },
}


def predictor_of(settings: Settings, online: object) -> Predictor:
    """One worker's predictor over the models and what is composed of them."""
    store = ReleaseStore(settings.releases_dir)
    for name in MEMBERS:
        publish_plain(settings, name)
    for name, of in COMPOSED.items():
        about = {"name": name.replace(" ", "_"), "description": name, "owner": "team:benchmarks"}
        spec = ComposedEndpointSpec.model_validate(about | of)
        publish_composition(store, spec, by="benchmark", reason="benchmark")
    state, metrics = ServingState({}), Metrics()
    alerts = ReleaseAlerts(settings, metrics, AlertSettings(webhook_url=""))
    Watcher(
        state,
        store,
        online,  # type: ignore[arg-type]
        metrics,
        alerts,
        in_force=LastKnownGood(settings.in_force_dir, store),
        keys_dir=settings.keys_dir,
    ).poll()
    log = InferenceLog(settings.inference_log_dir)
    return Predictor(state, log, metrics, ServingSettings(), LogHealth(log, alerts))


def cpu_us(work: Callable[[], object], times: int) -> float:
    """CPU time of one call in microseconds, of so many."""
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times * 1e6


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    rows, options = plain_rows(), PredictionOptions("benchmark", None)
    lines = [
        f"Medians of {rounds} turns, CPU µs per request, the encoding of the answer left out.",
        "",
        "| rows | one model | three apart | mean of three | times three apart | one of three a row | times one |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        with open_online_store(settings.online_uri) as online:
            predictor = predictor_of(settings, online)

            def ask(name: str, body: bytes) -> object:
                return predictor.answer_now(predictor.slot(name), body, options)

            for count, times in FEEDS.items():
                sent = [rows[number % len(rows)] for number in range(count)]
                body = msgspec.json.encode(sent[0] if count == 1 else {"rows": sent})
                ways: dict[str, Callable[[], object]] = {
                    "one": lambda body=body: ask("first", body),  # type: ignore[misc]
                    "apart": lambda body=body: [ask(name, body) for name in MEMBERS],  # type: ignore[misc]
                    "mean": lambda body=body: ask("mean_of_three", body),  # type: ignore[misc]
                    "route": lambda body=body: ask("one_of_three_for_each_row", body),  # type: ignore[misc]
                }
                for work in ways.values():
                    work()
                turns = {way: [] for way in ways}  # type: dict[str, list[float]]
                for _ in range(rounds):
                    for way, work in ways.items():
                        turns[way].append(cpu_us(work, times))
                one, apart, mean, route = (statistics.median(turns[way]) for way in ways)
                lines.append(
                    f"| {count:,} | {one:,.0f} | {apart:,.0f} | {mean:,.0f} | {mean / apart:.2f} "
                    f"| {route:,.0f} | {route / one:.2f} |"
                )
            predictor.close()
    packages = ("onnxruntime", "msgspec", "numpy")
    print(write_section("Several models at one endpoint", "python benchmarks/composed.py", lines, packages=packages))


if __name__ == "__main__":
    main()
