"""The maintenance asset: what it frees is on it, and a released model's training data survive it."""

from collections.abc import Mapping

import dagster as dg
import pytest

from ml_platform.lake.errors import VersionGone
from ml_platform.orchestration.maintenance import lake_maintenance, maintenance_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.registry.manifest import Target
from ml_platform.registry.pins import pinned_versions
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops


def _maintain(settings: Settings) -> tuple[Mapping[str, dg.MetadataValue], dg.AssetCheckEvaluation]:
    result = dg.materialize([lake_maintenance], resources=build_resources(settings))
    (event,) = result.asset_materializations_for_node("maintenance__lake")
    (check,) = result.get_asset_check_evaluations()
    return event.metadata, check


def test_what_a_released_model_was_trained_on_survives(
    shops: Shops, trained_shops: tuple[Shops, TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_LAKE_RETENTION_DAYS", "0")
    model, lake = trained_shops[1], shops.lake
    ref = model.training_set
    rows = lake.read(ref.table, version=ref.version).collect()
    unreleased = shops.training_set().version
    shops.training_set()
    shops.store.publish(shops.spec.name, [Target(version=1, digest=model.digest)], reason="test", by="test")
    assert pinned_versions(shops.store)[ref.table] == {ref.version}

    facts, check = _maintain(shops.settings)

    assert check.passed
    assert facts["files freed"].value == 1
    freed = facts["bytes freed"]
    assert isinstance(freed, dg.IntMetadataValue)
    assert (freed.value or 0) > 0
    tables = facts["by table"]
    assert isinstance(tables, dg.TableMetadataValue)
    by_table = {record.data["table"]: record.data for record in tables.records}
    assert by_table[ref.table]["versions kept for models"] == str(ref.version)
    assert by_table[ref.table]["files freed"] == 1
    assert lake.read(ref.table, version=ref.version).collect().equals(rows)
    for table, version in ref.tables.items():
        assert lake.read(table, version=version).collect().height
    with pytest.raises(VersionGone):
        lake.read(ref.table, version=unreleased)


def test_a_lost_version_is_a_warning_that_names_it(
    shops: Shops, trained_shops: tuple[Shops, TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_LAKE_RETENTION_DAYS", "0")
    model = trained_shops[1]
    shops.training_set()
    _maintain(shops.settings)  # before the release nothing is pinned
    shops.store.publish(shops.spec.name, [Target(version=1, digest=model.digest)], reason="test", by="test")
    _, check = _maintain(shops.settings)
    assert not check.passed
    assert f"{model.training_set.table} at {model.training_set.version}" in str(check.description)


@pytest.mark.parametrize("subject", ["lake", "registry"])
def test_it_runs_every_night(subject: str) -> None:
    definitions = dg.Definitions.merge(maintenance_defs(), dg.Definitions(resources=build_resources()))
    schedule = definitions.resolve_schedule_def(f"{subject}_maintenance_schedule")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    keys = definitions.resolve_job_def(f"{subject}_maintenance").asset_layer.executable_asset_keys
    assert keys == {dg.AssetKey(["maintenance", subject])}
