"""`make demo`: real data in, a model trained, gated and released, a prediction over HTTP, everything left running."""

import argparse
import json
import os
import sys
import textwrap
import time
import urllib.request
from collections.abc import Sequence
from importlib import import_module, util
from typing import TYPE_CHECKING, Any, Protocol

from ml_platform import dev
from ml_platform.private_files import private_umask
from ml_platform.processes import platform, runner
from ml_platform.project import current_project
from ml_platform.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}  # every event is in the UI
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


class Scenario(Protocol):
    """What an example gives the demo; a module with these names."""

    MODELS: tuple[str, ...]
    FIRST_DAY: str
    LAST_DAY: str
    TRAINED_AS_OF: str
    SCORED_DAYS: tuple[str, str]

    def request(self) -> tuple[dict[str, Any], str]:
        """Give one real request and what came of it in truth."""


class Clock:
    """Prints what happens with the time since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)


class Player:
    """Materialises the project on a scenario's days, in this process, into the instance that the UI will show."""

    def __init__(self, instance: "dg.DagsterInstance", clock: Clock) -> None:
        from ml_platform.orchestration.project_definitions import project_definitions

        self.instance, self.clock = instance, clock
        self.definitions = project_definitions()
        self.job = self.definitions.resolve_implicit_global_asset_job_def()
        self.graph = self.definitions.resolve_asset_graph()

    def play(self, scenario: Scenario) -> None:
        """Go from sources to released, scored and watched models, and retrain those that drifted."""
        import dagster as dg

        from ml_platform.orchestration.model_asset import CHAIN

        raw = self._keys("raw")
        daily = [key for key in raw if self.graph.get(key).partitions_def]
        self.run("reference tables", [key for key in raw if key not in daily])
        days = (scenario.FIRST_DAY, scenario.LAST_DAY)
        self.run(f"raw tables {days[0]} to {days[1]}", daily, days)
        for folder in ("features", "online", "catalogue"):
            self.run(folder, self._keys(folder))
        for model in scenario.MODELS:
            training = {f"{model}__training_set": {"config": {"as_of": scenario.TRAINED_AS_OF}}}
            self.run(f"{model}: training to release", [dg.AssetKey([model, name]) for name in CHAIN], config=training)
            self.run(f"{model}: batch scores", [dg.AssetKey([model, "predictions"])], scenario.SCORED_DAYS)
            watch = [dg.AssetKey([model, name]) for name in ("performance", "drift_report")]
            self.run(f"{model}: performance and drift", watch)
            self.retrain(model)

    def run(
        self,
        label: str,
        keys: "Sequence[dg.AssetKey]",
        days: tuple[str, str] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        """Materialise assets, unless an earlier demo has."""
        if all(self.instance.get_latest_materialization_event(key) for key in keys):
            self.clock.say(f"{label}: already there")
            return
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=keys,
            tags=dict(zip(RANGE_TAGS, days, strict=True)) if days else {},
            run_config={**QUIET, "ops": config or {}},
            raise_on_error=False,
        )
        if not result.success:
            failed = [event for event in result.all_events if event.is_step_failure]
            error = failed[0].step_failure_data.error if failed else None
            reason = error.message.strip() if error else "see the Dagster UI"
            raise SystemExit(f"demo: {label} failed: {reason}")
        self.clock.say(f"{label}: {', '.join(key.path[-1] for key in keys)}")

    def retrain(self, model: str) -> None:
        """Do what the daemon does all the time: ask the retraining sensor, and run what it requests."""
        import dagster as dg

        from ml_platform.orchestration.resources import build_resources
        from ml_platform.orchestration.retraining import REASON_TAG
        from ml_platform.training.documents import ReleaseDecision

        sensor = self.definitions.resolve_sensor_def(f"{model}_retraining")
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=self.instance, resources=build_resources()))
        for request in tick.run_requests or ():
            self.clock.say(f"{model}: the retraining sensor asks for a run: {_short(request.tags[REASON_TAG])}")
            result = self.definitions.resolve_job_def(f"{model}_retrain").execute_in_process(
                instance=self.instance, tags=request.tags, run_config=QUIET
            )
            decision: ReleaseDecision = result.output_for_node(f"{model}__release")
            served = "serves now" if decision.promoted else "does not serve"
            self.clock.say(f"{model}: version {decision.version} {served}: {_gate(decision.reasons)}")

    def _keys(self, folder: str) -> "list[dg.AssetKey]":
        return sorted(key for key in self.graph.materializable_asset_keys if key.path[0] == folder)


def _short(reason: str, width: int = 160) -> str:
    return textwrap.shorten(reason, width, placeholder=" …")


def _gate(reasons: Sequence[str]) -> str:
    """What decided: every condition that failed, or the gain that passed."""
    failed = [reason for reason in reasons if reason.startswith(("Failed", "Do not"))]
    gained = [reason for reason in reasons if reason.startswith("Passed")]
    return _short(" ".join(failed or gained[:1] or reasons), 400)


def predict(settings: Settings, scenario: Scenario) -> str:
    """Ask the running server for one real prediction and show it beside the truth."""
    row, truth = scenario.request()
    model = scenario.MODELS[0]
    request = urllib.request.Request(
        f"{settings.serving_url}/predict/{model}",
        data=json.dumps(row).encode(),
        headers={"Content-Type": "application/json"},
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    milliseconds = (time.perf_counter() - started) * 1000
    return (
        f"POST {request.full_url}\n    {json.dumps(row)}\n"
        f"answer in {milliseconds:.1f} ms\n    {json.dumps(answer)}\nin truth: {truth}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--oneshot", action="store_true", help="stop after the prediction (make demo ONESHOT=1)")
    options = parser.parse_args(arguments)

    clock = Clock()
    try:
        chosen = platform.ports()
        private_umask()
        wanted = platform.platform_processes(Settings(), chosen)
        dev.prepare(Settings(), wanted)
        runner.check_ports(wanted)
        # From here on this process is one of the platform's own: same folders, same addresses.
        os.environ.update(platform.platform_environment(Settings(), chosen))
        return _run(wanted, clock, oneshot=options.oneshot)
    except runner.CannotStart as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _run(wanted: Sequence[runner.Process], clock: Clock, *, oneshot: bool) -> int:
    settings = Settings()
    example = f"{current_project().package}.defs.flights"
    if util.find_spec(example) is None:
        clock.say("This project has no example to run; starting what is there.")
        return runner.run(
            wanted, on_ready=lambda: print(platform.addresses(wanted)), on_given_up=dev.alert_given_up, oneshot=oneshot
        )
    import dagster as dg

    scenario: Scenario = import_module(f"{example}.scenario")
    with dg.DagsterInstance.get() as instance:
        Player(instance, clock).play(scenario)

    def show() -> None:
        clock.say("ready")
        print(
            f"\n{predict(settings, scenario)}\n\n{platform.addresses(wanted)}\n\nCtrl-C stops everything.", flush=True
        )

    return runner.run(
        wanted, on_ready=show, on_given_up=dev.alert_given_up, oneshot=oneshot, logs=settings.home / "logs"
    )


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Without the interpreter's tear-down, in which DuckDB's binding reports every live object as a leak.
    os._exit(code)
