"""Raw tables as assets: a thin asset per `RawTable`, replaced day by day or whole, with its contract as a check."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.lake.ingestion.raw_table import Calendar, RawTable
from ml_platform.orchestration.metadata import sample, table
from ml_platform.orchestration.resources import Platform

if TYPE_CHECKING:
    import dataframely as dy
    import polars as pl

    from ml_platform.lake.ingestion.ingest import IngestReport
    from ml_platform.lake.storage.tables import Lake

CHECK = "contract"
MAX_QUARANTINED_SHARE = 0.05  # above it the source is broken, not some of its rows


def raw_table_asset(raw: RawTable, *, owners: Sequence[str]) -> dg.AssetsDefinition:
    """Build the asset of a raw table.

    A table with a calendar has one Dagster partition per day; a range of days is one run and replaces exactly those
    days, however often it runs. Rows that break the contract are quarantined and fail the `contract` check: a warning,
    an error above 5 % of the rows read. Columns that are not the contract's fail the step.

    Parameters
    ----------
    raw
        Source, contract and calendar.
    owners
        E-mail addresses or `team:` names.

    Examples
    --------
    >>> import dataframely as dy
    >>> import polars as pl
    >>> class Sensor(dy.Schema):
    ...     name = dy.String(primary_key=True)
    >>> def read(start: date | None, end: date | None) -> pl.DataFrame:
    ...     return pl.DataFrame({"name": ["a", "b"]})
    >>> sensors = RawTable(
    ...     name="raw/sensors", description="One sensor.", source="a list", contract=Sensor, read=read
    ... )
    >>> raw_table_asset(sensors, owners=["team:weather"]).key.to_user_string()
    'raw/sensors'
    """
    key = dg.AssetKey(raw.name.split("/"))

    @dg.asset(
        key=key,
        description=f"{raw.description}\n\nSource: {raw.source}. Rejected rows: `quarantine/{raw.name}`.",
        group_name="raw",
        kinds={"deltalake", "polars"},
        owners=list(owners),
        metadata={"dagster/column_schema": contract_schema(raw.contract)},
        partitions_def=_daily(raw.calendar),
        backfill_policy=dg.BackfillPolicy.single_run() if raw.calendar else None,
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=key,
                description=f"No row broke the contract; an error above {MAX_QUARANTINED_SHARE:.0%} of the rows read.",
            )
        ],
    )
    def raw_table(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        start, end = _days(context) if raw.calendar else (None, None)
        report = raw.load(platform.lake, start, end, progress=context.log.info)
        return dg.MaterializeResult(
            metadata={
                "dagster/column_schema": contract_schema(raw.contract),
                **_facts(platform.lake, raw, report, start, end),
            },
            check_results=[contract_result(report)],
        )

    return raw_table


def contract_schema(contract: "type[dy.Schema]") -> dg.TableSchema:
    """Column schema of a contract: types, descriptions with units, constraints in words."""
    from ml_platform.lake.contracts.contract import describe

    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=str(column.type),
                description=f"{column.description} [{column.unit}]" if column.unit else column.description,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable,
                    unique=column.primary_key and len(contract.primary_key()) == 1,
                    other=[*column.constraints, *(["part of the primary key"] if column.primary_key else [])],
                ),
            )
            for column in describe(contract)
        ]
    )


def contract_result(report: "IngestReport") -> dg.AssetCheckResult:
    """What the `contract` check says of an ingest."""
    broken = report.quarantined_share > MAX_QUARANTINED_SHARE
    contract_check = (
        f"All {report.rows_read} rows hold the contract."
        if report.rows_read
        else "The source has no rows for these days."
    )
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=report.rows_quarantined == 0 and not report.unheld,
        severity=dg.AssetCheckSeverity.ERROR if broken else dg.AssetCheckSeverity.WARN,
        description=(
            f"{report.rows_quarantined} of {report.rows_read} rows broke the contract and are in "
            f"'{report.quarantine_table}'."
            if report.rows_quarantined
            else contract_check
        )
        + _unheld(report),
        metadata={
            "rows quarantined": report.rows_quarantined,
            "share quarantined": report.quarantined_share,
            "reasons": _reasons(report),
        },
    )


def _unheld(report: "IngestReport") -> str:
    if not report.unheld:
        return ""
    rules = "; ".join(report.unheld)
    return f" Older rows of the table break the contract as it is now: load them again ({rules})."


def _facts(
    lake: "Lake", raw: RawTable, report: "IngestReport", start: date | None, end: date | None
) -> dict[str, dg.MetadataValue | int | float]:
    import polars as pl

    rows = lake.read(raw.name, version=report.version)
    written = rows
    if raw.calendar is not None:
        written = rows.filter(pl.col(raw.calendar.column).is_between(start, end, closed="left"))
    return {**ingest_facts(report, rows), "sample": sample(written.head(5).collect())}


def ingest_facts(report: "IngestReport", rows: "pl.LazyFrame") -> dict[str, dg.MetadataValue | int | float]:
    """What an ingest shows of itself; `rows` are the table after it."""
    import polars as pl

    return {
        "dagster/row_count": rows.select(pl.len()).collect().item(),
        "rows read": report.rows_read,
        "rows accepted": report.rows_written,
        "rows quarantined": report.rows_quarantined,
        "reasons": _reasons(report),
        "delta version": report.version,
    }


def _reasons(report: "IngestReport") -> dg.MetadataValue:
    return table([{"reason": reason, "rows": rows} for reason, rows in report.reasons.items()])


def _daily(calendar: Calendar | None) -> dg.DailyPartitionsDefinition | None:
    if calendar is None:
        return None
    end = calendar.last + timedelta(days=1)  # Dagster's end is exclusive
    return dg.DailyPartitionsDefinition(start_date=calendar.first.isoformat(), end_date=end.isoformat())


def _days(context: dg.AssetExecutionContext) -> tuple[date, date]:
    """First day of the run and the day after its last."""
    keys = context.partition_key_range
    return date.fromisoformat(keys.start), date.fromisoformat(keys.end) + timedelta(days=1)
