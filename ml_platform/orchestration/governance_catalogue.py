"""The catalogue as an asset: collected each hour with the last verdicts of all checks, for console and search."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
from dagster._check import CheckError
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from ml_platform.orchestration.check_status import shown_records
from ml_platform.orchestration.execution import scheduled
from ml_platform.orchestration.metadata import table
from ml_platform.orchestration.resources import Platform

if TYPE_CHECKING:
    from ml_platform.catalogue.document import Check, Verdict

KEY = dg.AssetKey(["governance", "catalogue"])
CHECK = "complete"
_TOLD = 20


@dg.asset(
    key=KEY,
    group_name="governance",
    kinds={"json"},
    owners=["team:platform"],
    description="Everything that there is, for the console's search, and a page per model for people who do not code.",
    check_specs=[
        dg.AssetCheckSpec(
            CHECK, asset=KEY, description="Everything could be read, and every link of a glossary term leads somewhere."
        )
    ],
)
def catalogue(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """Collect the catalogue and the pages of all models, and keep both for serving."""
    from ml_platform.catalogue.refresh import refresh_catalogue

    made = refresh_catalogue(platform.settings, checks=_known_verdicts(context))
    counts: dict[str, int] = {}
    for entry in made.entries:
        counts[entry.kind] = counts.get(entry.kind, 0) + 1
    unowned = sorted(
        entry.name for entry in made.entries if not entry.owner and entry.kind in ("table", "view", "model")
    )
    return dg.MaterializeResult(
        metadata={
            "entries": len(made.entries),
            "kinds": table([{"kind": kind, "entries": count} for kind, count in counts.items()]),
            "columns": sum(len(entry.columns) for entry in made.entries),
            "without an owner": ", ".join(unowned[:_TOLD]) or "none",
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=CHECK,
                passed=not made.problems,
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(made.problems[:_TOLD]) or "All of it.",
            )
        ],
    )


def _known_verdicts(context: dg.AssetExecutionContext) -> Mapping[str, Sequence["Check"]] | None:
    """The last verdicts of the code location's checks; None where the asset runs alone, outside of one."""
    try:
        graph = context.repository_def.asset_graph
    except CheckError:
        return None
    return last_verdicts(context.instance, graph)


def last_verdicts(instance: dg.DagsterInstance, graph: AssetGraph) -> Mapping[str, Sequence["Check"]]:
    """What every check of the project last found, by the entry of the catalogue that it is about."""
    from ml_platform.catalogue.document import Check

    keys = sorted(graph.asset_check_keys)
    records = shown_records(instance, keys)
    found: dict[str, list[Check]] = {}
    for key in keys:
        verdict, at, says = _verdict(records.get(key))
        description = graph.get_check_spec(key).description or ""
        check = Check(name=key.name, description=description, verdict=verdict, at=at, says=says)
        found.setdefault(_entry_of(key.asset_key.to_user_string()), []).append(check)
    return found


def _entry_of(asset: str) -> str:
    """The entry that a check of an asset is shown with: of what a model answers, that is the model."""
    from ml_platform.catalogue.collect.others import name_of_asset

    name = name_of_asset(asset)
    schema, _, model = name.partition(".")
    return f"model:{model}" if schema in ("inference_log", "predictions") else name


def _verdict(record: AssetCheckExecutionRecord | None) -> "tuple[Verdict, str | None, str]":
    """Verdict, instant and finding of a check's record."""
    if record is None:
        return "not run", None, ""
    at = datetime.fromtimestamp(record.create_timestamp, UTC).isoformat()
    evaluation = record.evaluation
    if evaluation is None:
        return "not run", at, "Its run has not judged it: it waits, or failed before."
    says = evaluation.description or ""
    if evaluation.passed:
        return "passed", at, says
    return ("failed" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warned"), at, says


def catalogue_defs() -> dg.Definitions:
    """Build the asset, its job and its schedule."""
    return scheduled(
        catalogue,
        job_name="catalogue",
        cron="40 * * * *",
        description="Collect the catalogue and the pages of all models again.",
    )
