"""The console's pages of registered versions: all of a model with a chart, one in full, and several side by side."""

from collections.abc import Sequence
from typing import Any

from ml_platform.registry.approvals import ApprovalRequest
from ml_platform.registry.comparisons import SameRows, find_comparison, gain_figures, same_rows_parts, verdicts
from ml_platform.registry.model_card import carded_versions
from ml_platform.registry.recorded_comparison import fact_rows, unlike
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stages import current_state
from ml_platform.registry.version_chart import VersionChart, chart_versions
from ml_platform.registry.version_facts import all_facts, facts_of

MOST_COMPARED = 8


def versions_page(store: ReleaseStore, model: str, metric: str | None) -> dict[str, Any]:
    """What the page of a model's versions shows (raises LookupError for an unknown model or metric)."""
    facts = all_facts(store, model)
    chart: VersionChart | None = None
    no_chart = ""
    try:
        chart = chart_versions(store, model, metric)
    except LookupError as error:
        if metric is not None:
            raise
        no_chart = str(error)
    return {
        "model": model,
        "versions": facts[::-1],
        "cards": carded_versions(store, model),
        "chart": chart,
        "no_chart": no_chart,
        "notes": store.notes.load(model),
    }


def version_page(store: ReleaseStore, model: str, version: int) -> dict[str, Any]:
    """What the page of one version shows (raises LookupError for an unknown one)."""
    facts = facts_of(store, model, version)
    others = [number for number in store.versions(model) if number != version]
    served = [number for number, stage in current_state(store, model).stages.items() if stage == "Production"]
    request: ApprovalRequest | None = store.approvals.get(model, version)
    return {
        "model": model,
        "facts": facts,
        "parts": fact_rows([facts]),
        "has_card": version in carded_versions(store, model),
        "compare_with": next((number for number in (*served, *reversed(others)) if number != version), None),
        "notes": store.notes.load(model, version),
        "approval": request,
    }


def compare_page(store: ReleaseStore, model: str, versions: Sequence[int]) -> dict[str, Any]:
    """What the page of versions side by side shows.

    Raises
    ------
    LookupError
        For an unknown version.
    ValueError
        When there are fewer than two of them, or more than `MOST_COMPARED`.
    """
    store.check_version(model)
    chosen = list(dict.fromkeys(versions))
    if not 2 <= len(chosen) <= MOST_COMPARED:
        known = ", ".join(map(str, store.versions(model)))
        raise ValueError(f"choose 2 to {MOST_COMPARED} versions of {known}: compare?version=1&version=2")
    sides = [facts_of(store, model, version) for version in chosen]
    same_rows: SameRows | None = find_comparison(store, model, {side.version: side.digest for side in sides})
    return {
        "model": model,
        "sides": sides,
        "parts": fact_rows(sides),
        "warnings": unlike(sides),
        "same_rows": same_rows,
        "same_sides": [facts_of(store, model, version) for version in same_rows.versions] if same_rows else [],
        "figures": gain_figures(same_rows) if same_rows else [],
        "verdicts": verdicts(same_rows) if same_rows else [],
        "same_parts": same_rows_parts(same_rows) if same_rows else [],
    }
