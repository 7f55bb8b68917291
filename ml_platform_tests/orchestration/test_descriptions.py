"""What assets show of themselves in the Dagster UI is complete, and in the owner's words."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import dagster as dg

from ml_platform.features.views.load import load_view
from ml_platform.orchestration.feature_assets import feature_view_defs
from ml_platform.orchestration.metadata import in_short
from ml_platform.registry.manifest import Target
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.monitoring.skew.test_detect import HOUR, NOON, Live
from ml_platform_tests.orchestration.test_data_checks import definitions
from ml_platform_tests.toy_world import Shops

WINDOWS = """\
description: How a shop has been selling.
owner: team:shops
entity: [shop]
rolling:
  source: raw/orders
  time: ordered_at
  windows: [3 hours, 7 days]
  aggregates:
    orders: {function: count, description: Orders.}
"""


def materialised(shops: Shops, name: str, day: date | None = None) -> Sequence[dg.TableColumn]:
    job = definitions(shops).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[dg.AssetKey([shops.spec.name, name])], partition_key=str(day) if day else None
    )
    (event,) = result.get_asset_materialization_events()
    schema = event.materialization.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    return schema.value.columns


def test_every_column_of_scored_rows_is_described(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> None:
    digest = trained_shops[1].digest
    shops.store.publish(shops.spec.name, [Target(version=1, digest=digest)], reason="test", by="test")
    live = Live(shops, digest)
    live.publish(NOON)
    live.answer(NOON, NOON + 6 * HOUR)
    undescribed = {"shop", "channel"}  # their owner says nothing of them
    for columns in (materialised(shops, "predictions", NOON.date()), materialised(shops, "inference_log")):
        described = {column.name: column.description for column in columns}
        assert {name for name, text in described.items() if not text} == undescribed
        assert (described["id"], described["weight"]) == ("The row's id.", "[kg]")


def test_a_view_of_windows_is_shown_as_it_was_declared(tmp_path: Path) -> None:
    (tmp_path / "sales.yaml").write_text(WINDOWS)
    view = load_view(tmp_path / "sales.yaml")
    table = next(iter(feature_view_defs(view).assets or ()))
    assert isinstance(table, dg.AssetsDefinition)
    description = table.get_asset_spec().description or ""
    assert description.startswith("How a shop has been selling.\n\n```yaml\nrolling:\n  source: raw/orders\n")
    assert "  - 3 hours\n  - 7 days\n" in description
    assert "SELECT" not in description


def test_reasons_in_one_line_have_one_mark_between_them() -> None:
    assert in_short(["Do not promote.", "Failed: 0.8 against 0.9."]) == "Do not promote; Failed: 0.8 against 0.9"
