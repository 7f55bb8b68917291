"""Schedules train in any case, and watch a model only once it serves."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from ml_platform.orchestration.model_defs import build_model_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.retraining import TRIGGER_TAG
from ml_platform.registry.manifest import Target
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    """One on disk: a schedule opens it from its reference."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as local:
        yield local


@pytest.fixture
def tick(shops: Shops, instance: dg.DagsterInstance):
    """Evaluate one of the model's schedules; gives its run request and why it skipped."""
    definitions = dg.Definitions.merge(
        build_model_defs(shops.spec, shops.folder, shops.views),
        dg.Definitions(resources=build_resources(shops.settings)),
    )

    def _tick(purpose: str) -> tuple[dg.RunRequest | None, str | None]:
        schedule = definitions.resolve_schedule_def(f"order_late_{purpose}_schedule")
        context = dg.build_schedule_context(
            scheduled_execution_time=datetime(2024, 3, 4, 6, tzinfo=UTC),
            resources=build_resources(shops.settings),
            instance=instance,
        )
        done = schedule.evaluate_tick(context)
        return next(iter(done.run_requests or ()), None), done.skip_message

    return _tick


def test_training_needs_no_release(tick):
    request, _ = tick("retraining")
    assert request.tags[TRIGGER_TAG] == "order_late/schedule"


def test_watching_waits_for_a_release(tick, shops: Shops, trained_shops: tuple[Shops, TrainedModel]):
    request, why = tick("watch")
    assert request is None
    assert why == "nothing of order_late is released yet; run order_late_retrain first"
    shops.store.publish("order_late", [Target(version=1, digest=trained_shops[1].digest)], reason="test", by="test")
    request, _ = tick("watch")
    assert request is not None
