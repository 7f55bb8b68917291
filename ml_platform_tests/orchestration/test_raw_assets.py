"""Raw assets, really materialised: partitions, ranges, metadata, the contract's check."""

from datetime import date
from pathlib import Path

import dagster as dg
import dataframely as dy
import polars as pl
import pytest

from ml_platform.defs.flights.assets import defs as flights_defs
from ml_platform.lake.ingestion.ingest import DAY
from ml_platform.lake.ingestion.raw_table import Calendar, RawTable
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.raw_assets import raw_table_asset
from ml_platform.orchestration.resources import build_resources
from ml_platform.settings import Settings


class Sales(dy.Schema):
    day = dy.Date(description="Day of the sale.")
    sale = dy.Int64(primary_key=True, description="Number.")
    amount = dy.Float64(min=0, description="Price.", metadata={"unit": "€"})


def _sales(folder: Path, *, amounts: dict[int, str] | None = None) -> dg.AssetsDefinition:
    """Ten days of ten sales each; `amounts` are put in place of the amounts of single sales."""

    def read(start: date | None, end: date | None) -> pl.DataFrame:
        with (folder / "reads.txt").open("a") as reads:
            reads.write(f"{start} {end}\n")
        rows = pl.DataFrame({"sale": range(100)}).with_columns(
            day=pl.date(2013, 1, pl.col("sale") // 10 + 1),
            amount=pl.col("sale").cast(pl.String).replace({str(sale): text for sale, text in (amounts or {}).items()}),
        )
        return rows.with_columns(pl.col("day").alias(DAY)).filter(pl.col("day").is_between(start, end, closed="left"))

    raw = RawTable(
        name="raw/sales",
        description="Sales.",
        source="till",
        contract=Sales,
        read=read,
        calendar=Calendar("day", date(2013, 1, 1), date(2013, 1, 10)),
    )
    return raw_table_asset(raw, owners=["team:shop"])


def _materialise(
    asset: dg.AssetsDefinition, settings: Settings, first: str, last: str | None = None
) -> dg.ExecuteInProcessResult:
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last} if last else {}
    return dg.materialize(
        [asset],
        resources=build_resources(settings),
        tags=tags,
        raise_on_error=False,
        partition_key=first if last is None else None,
    )


def _sold(lake: Lake) -> list[int]:
    return sorted(lake.read("raw/sales").collect()["sale"])


def test_a_day_and_a_range_can_be_repeated_without_losing_or_doubling_a_row(
    settings: Settings, lake: Lake, tmp_path: Path
) -> None:
    asset = _sales(tmp_path)
    assert _materialise(asset, settings, "2013-01-02").success
    assert _sold(lake) == list(range(10, 20))
    for _ in range(2):
        assert _materialise(asset, settings, "2013-01-01", "2013-01-10").success
        assert _sold(lake) == list(range(100))
    assert _materialise(asset, settings, "2013-01-10").success
    assert _sold(lake) == list(range(100))


def test_a_range_is_one_run_that_reads_the_source_once(settings: Settings, tmp_path: Path) -> None:
    result = _materialise(_sales(tmp_path), settings, "2013-01-03", "2013-01-06")
    assert (tmp_path / "reads.txt").read_text().splitlines() == ["2013-01-03 2013-01-07"]
    partitions = [event.partition for event in result.asset_materializations_for_node("raw__sales")]
    assert partitions == [f"2013-01-0{day}" for day in range(3, 7)]


def test_the_materialisation_says_what_became_of_the_rows(settings: Settings, lake: Lake, tmp_path: Path) -> None:
    result = _materialise(_sales(tmp_path, amounts={3: "free", 4: "-1"}), settings, "2013-01-01", "2013-01-10")
    metadata = result.asset_materializations_for_node("raw__sales")[0].metadata
    assert {name: metadata[name].value for name in ("rows read", "rows accepted", "rows quarantined")} == {
        "rows read": 100,
        "rows accepted": 98,
        "rows quarantined": 2,
    }
    assert metadata["dagster/row_count"].value == 98
    assert metadata["delta version"].value == lake.version("raw/sales") - 1  # then came the constraints
    sample, reasons, schema = (metadata[name] for name in ("sample", "reasons", "dagster/column_schema"))
    assert isinstance(sample, dg.MarkdownMetadataValue)
    assert isinstance(reasons, dg.TableMetadataValue)
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    assert "| 2013-01-" in (sample.value or "")
    assert {record.data["reason"]: record.data["rows"] for record in reasons.records} == {
        "amount: not a number": 1,
        "amount: below 0": 1,
    }
    columns = {column.name: column for column in schema.value.columns}
    assert columns["amount"].description == "Price. [€]"
    assert list(columns["amount"].constraints.other) == ["at least 0"]
    assert columns["sale"].constraints.unique


@pytest.mark.parametrize(
    ("broken", "passed", "severity"),
    [(0, True, "WARN"), (5, False, "WARN"), (6, False, "ERROR")],
)
def test_the_contract_s_check_warns_and_above_five_percent_errs(
    settings: Settings, tmp_path: Path, broken: int, passed: bool, severity: str
) -> None:
    asset = _sales(tmp_path, amounts=dict.fromkeys(range(broken), "free"))
    result = _materialise(asset, settings, "2013-01-01", "2013-01-10")
    (check,) = result.get_asset_check_evaluations()
    assert result.success
    assert (check.check_name, check.passed, check.severity.value) == ("contract", passed, severity)
    assert check.metadata["rows quarantined"].value == broken


def test_wrong_columns_fail_the_step_and_name_the_column(settings: Settings, lake: Lake, tmp_path: Path) -> None:
    raw = RawTable(
        name="raw/sales",
        description="Sales.",
        source="till",
        contract=Sales,
        read=lambda _start, _end: pl.DataFrame({"day": ["2013-01-01"], "sale": ["1"], "amuont": ["1"]}),
    )
    result = dg.materialize(
        [raw_table_asset(raw, owners=["team:shop"])], resources=build_resources(settings), raise_on_error=False
    )
    assert not result.success
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.error
    assert error is not None
    assert error.cause is not None
    message = error.cause.message
    assert "till for 'raw/sales': column 'amount': wanted Float64, found no such column (is it 'amuont'?)" in message
    assert lake.tables() == []


def test_the_flights_are_five_assets_the_dated_ones_daily() -> None:
    complete = dg.Definitions.merge(flights_defs, dg.Definitions(resources=build_resources()))
    specs = {spec.key.to_user_string(): spec for spec in complete.resolve_all_asset_specs()}
    assert specs.keys() == {"raw/flights", "raw/weather", "raw/planes", "raw/airports", "raw/airlines"}
    daily = {key for key, spec in specs.items() if spec.partitions_def is not None}
    assert daily == {"raw/flights", "raw/weather"}
    partitions = specs["raw/flights"].partitions_def
    assert partitions is not None
    days = partitions.get_partition_keys()
    assert (days[0], days[-1], len(days)) == ("2013-01-01", "2013-12-31", 365)
    assert {spec.group_name for spec in specs.values()} == {"raw"}
    assert all(spec.kinds == {"deltalake", "polars"} and spec.owners for spec in specs.values())


def test_a_real_day_with_a_clock_change_is_materialised(settings: Settings, lake: Lake) -> None:
    weather = flights_defs.get_assets_def(["raw", "weather"])
    assert _materialise(weather, settings, "2013-11-03").success
    by_origin = lake.read("raw/weather").group_by("origin").len().collect()
    assert sorted(by_origin["len"]) == [24, 24, 24]
