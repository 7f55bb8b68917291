"""The audit log as an asset: ingested into the lake every hour, and verified."""

from datetime import UTC, datetime

import dagster as dg

from ml_platform.governance.audit import TABLE
from ml_platform.orchestration.execution import scheduled
from ml_platform.orchestration.resources import Platform

KEY = dg.AssetKey(TABLE.split("/"))
CHECK, UNUSUAL = "unaltered", "usual_access"
ALERT = "unusual_access"
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
        ),
        dg.AssetCheckSpec(
            UNUSUAL, asset=KEY, description="Nobody's reads of today differ from their own 28 days before."
        ),
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
    unusual = _judge_access(platform)
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
            ),
            dg.AssetCheckResult(
                check_name=UNUSUAL,
                passed=not unusual,
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(unusual[:_TOLD]) or "Nothing unusual.",
            ),
        ],
    )


def _judge_access(platform: Platform) -> list[str]:
    """Judge today's reads, and alert by reader and rule; what no longer holds ends by itself."""
    from ml_platform.governance.read_history import reads
    from ml_platform.governance.unusual_access import PAST, tagged_objects, unusual_access
    from ml_platform.monitoring.alerts.alert import Alert
    from ml_platform.monitoring.alerts.conditions import conditions, update_condition

    settings, now = platform.settings, datetime.now(UTC)
    found = unusual_access(
        reads(platform.lake, settings, since=now - PAST), now.date(), sensitive=tagged_objects(settings)
    )
    told: dict[str, list[str]] = {}
    for one in found:
        told.setdefault(f"{one.rule} of {one.who}", []).append(one.what)
    firing = {one.subject for one in conditions(settings) if one.kind == ALERT and one.state == "firing"}
    for subject in sorted(firing | told.keys()):
        lines = told.get(subject, [])
        alert = Alert(
            model="platform",
            kind=ALERT,
            severity="warning",
            title=f"Unusual access: {subject}",
            body="; ".join(lines) or "It is as on the days before.",
        )
        update_condition(settings, alert, firing=bool(lines), subject=subject)
    return [one.what for one in found]


def audit_defs() -> dg.Definitions:
    """Build the asset, its job and its schedule."""
    return scheduled(
        audit, job_name="audit", cron="20 * * * *", description="Take the audit log into the lake and verify it."
    )
