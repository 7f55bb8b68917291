"""What the UI says of a check while a run waits, works or was canceled: what the check last found.

Dagster writes a record of each check of a run when the run is created, and its UI shows the newest record. So a run in
the queue, or one that is stuck or was canceled there, hides the failure that the check has found. Dagster's own asset
health falls back on the last evaluation; this does the same for the badges and pages of checks.

Only what the webserver shows is changed: records, sensors and automation conditions see what they always see. The
place is not public, and a test through GraphQL notices when a release moves it.
"""

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster._core.loader import LoadingContext
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)


def show_last_evaluations() -> None:
    """Let this process show each check's last evaluation until there is a newer one."""

    def load(
        cls: type[AssetCheckExecutionRecord],  # noqa: ARG001 - it becomes a class method
        keys: Iterable[dg.AssetCheckKey],
        context: LoadingContext,
    ) -> Iterable[AssetCheckExecutionRecord | None]:
        wanted = list(keys)
        records = shown_records(context.instance, wanted)
        return [records.get(key) for key in wanted]

    AssetCheckExecutionRecord._blocking_batch_load = classmethod(load)  # type: ignore[assignment,method-assign]


def shown_records(
    instance: dg.DagsterInstance, keys: list[dg.AssetCheckKey]
) -> Mapping[dg.AssetCheckKey, AssetCheckExecutionRecord]:
    """Find the record of each check that says how it stands.

    That is the newest, unless its run has not evaluated the check, and has not failed: then it is the last evaluation,
    where there is one.

    Parameters
    ----------
    instance
        Dagster's instance.
    keys
        The checks.

    Returns
    -------
    mapping
        Check → record; checks that no run ever was to evaluate are left out.
    """
    storage = instance.event_log_storage
    newest = storage.get_latest_asset_check_execution_by_key(keys)
    planned = {key: one for key, one in newest.items() if one.status == AssetCheckExecutionRecordStatus.PLANNED}
    runs = {run_id: instance.get_run_by_id(run_id) for run_id in {record.run_id for record in planned.values()}}
    shown = dict(newest)
    for key, record in planned.items():
        run = runs[record.run_id]
        if run is not None and run.status == dg.DagsterRunStatus.FAILURE:
            continue  # it ended before it came to the check, which the UI says
        evaluated = storage.get_asset_check_execution_history(
            key, limit=1, status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
        )
        if evaluated:
            shown[key] = evaluated[0]
    return shown
