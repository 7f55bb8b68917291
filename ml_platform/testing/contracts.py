"""Contracts of raw tables, held against rows of their sources."""

from ml_platform.lake.ingestion.ingest import IngestReport
from ml_platform.lake.storage.tables import Lake
from ml_platform.testing.home import SampleHome

_EXAMPLES = 3


def check_contract_holds(table: str, home: SampleHome, *, rejected: float = 0.0) -> None:
    """Check that the rows of a raw table's source meet its contract, on the sample of a `sample_home`.

    The rows go the way of production: read by the table's own reader, converted, checked against the contract, written
    to a table with its constraints. It shows that source and contract fit today, on those rows: not that later rows
    will, and with a sample file in place of the source, nothing of the source.

    Parameters
    ----------
    table
        Name of the table, `raw/<name>`.
    home
        Where the sample is loaded.
    rejected
        Share of the rows (0 to 1) that may be rejected, where bad ones are known and belong into the quarantine.

    Raises
    ------
    AssertionError
        If the source cannot be read, has no rows, or more of them are rejected; with reasons and examples.
    """
    report = home.load(table)
    if report.rows_read == 0:
        raise AssertionError(
            f"{table}: wanted rows to hold its contract against, found none; nothing was compared. Load more days, or "
            "put rows into the folder of samples (see sample_home)"
        )
    if report.quarantined_share > rejected:
        reasons = "\n".join(f"  {count:,} × {reason}" for reason, count in report.reasons.items())
        raise AssertionError(
            f"{table}: wanted at most {rejected:g} of the rows to be rejected, found {report.rows_quarantined:,} of "
            f"{report.rows_read:,}:\n{reasons}\n{_examples(home.lake, report)}\n"
            "Correct the source, or the contract; or say by `rejected=` how many are known to be bad"
        )


def _examples(lake: Lake, report: IngestReport) -> str:
    rows = lake.read(report.quarantine_table).select("source_row", "reasons", "row").head(_EXAMPLES).collect()
    return "\n".join(f"  row {number}: {'; '.join(reasons)}: {row}" for number, reasons, row in rows.iter_rows())
