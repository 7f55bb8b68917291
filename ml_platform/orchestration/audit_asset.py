"""The audit log as an asset: ingested into the lake every hour, and verified."""

import dagster as dg

from ml_platform.governance.audit import TABLE
from ml_platform.orchestration.execution import scheduled
from ml_platform.orchestration.resources import Platform

KEY = dg.AssetKey(TABLE.split("/"))
CHECK = "unaltered"
_TOLD = 20


@dg.asset(
    key=KEY,
    group_name="governance",
    kinds={"fastapi", "deltalake"},
    owners=["team:platform"],
    description="Who asked serving for what and how it ended, who made and revoked keys, who released what.",
    check_specs=[
        dg.AssetCheckSpec(
            CHECK, asset=KEY, description="No line, nor entry of the ledger, was altered, removed or moved."
        )
    ],
)
def audit(platform: Platform) -> dg.MaterializeResult:
    """Ingest the files of the audit log, then verify all of it, and the ledger by it."""
    from ml_platform.governance.audit_table import ingest_audit, verify_audit
    from ml_platform.governance.ledger_check import verify_ledger

    report = ingest_audit(platform.lake, platform.settings)
    lines, findings = verify_audit(platform.lake, platform.settings)
    entries, ledger_findings = verify_ledger(platform.lake, platform.settings)
    findings += ledger_findings
    summary = "; ".join(str(finding) for finding in findings[:_TOLD])
    return dg.MaterializeResult(
        metadata={
            "new rows": report.rows,
            "files read": report.segments,
            "files ingested": report.deleted,
            "lines verified": lines,
            "ledger entries verified": entries,
            "findings": len(findings),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=CHECK,
                passed=not findings,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"All of them: `ml-platform audit verify`. {summary}" if findings else "As it was written.",
            )
        ],
    )


def audit_defs() -> dg.Definitions:
    """Build the asset, its job and its schedule."""
    return scheduled(
        audit, job_name="audit", cron="20 * * * *", description="Take the audit log into the lake and verify it."
    )
