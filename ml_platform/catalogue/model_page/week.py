"""What a model did in the last week, in words: requests, batches, alarms, drift, true values that came, releases."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.catalogue.model_page.words import Subject, metric_in_words
from ml_platform.monitoring.status import ModelStatus, StatusUnreadable, read_status
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake

WEEK = timedelta(days=7)


def week_of(  # noqa: PLR0917 - each is known to the page already
    settings: Settings,
    name: str,
    store: ReleaseStore,
    document: Endpoint | None,
    subject: Subject,
    now: datetime,
    problems: list[str],
) -> Iterator[tuple[str, str]]:
    """Titles and sentences about the seven days before `now`; what could not be read is added to `problems`."""
    since = now - WEEK
    try:
        from ml_platform.lake.storage.tables import Lake

        lake = Lake(settings.lake_uri)
        tables = set(lake.tables())
        yield "Requests", _requests(lake, tables, f"inference_log/{name}", since, now)
        yield "Batch", _scored(lake, tables, f"predictions/{name}", since, now)
    except Exception as error:  # noqa: BLE001 - of an away or damaged lake; the rest of the page still stands
        reason = f"the lake cannot be read: {type(error).__name__}: {str(error).splitlines()[0]}"
        problems.append(reason)
        yield "Requests and batch", "Not known, see below."
    yield "Alarms", _alarms(settings.alerts_dir / "alerts.jsonl", name, since, now)
    status: ModelStatus | None = None
    try:
        status = read_status(store, name)
    except (StatusUnreadable, OSError, ValueError) as error:
        problems.append(str(error))
    yield "Drift", _drift(status)
    yield "Labels", _labels(status, subject)
    history = store.history(name) if document is not None else []
    changed = sum(1 for one in history if since <= datetime.fromisoformat(one.updated_at) <= now)
    yield "Releases", f"{changed} change{'' if changed == 1 else 's'} of what serves." if changed else "None."


def _requests(lake: "Lake", tables: set[str], table: str, since: datetime, now: datetime) -> str:
    import polars as pl

    if table not in tables:
        return "None has reached the log's table yet."
    rows = lake.read(table).filter(pl.col("scored_at").is_between(since, now))
    counted = rows.select(pl.col("request_id").n_unique().alias("requests"), pl.len().alias("rows")).collect().row(0)
    return (
        f"{counted[0]:,} requests with {counted[1]:,} predictions, as far as the log was taken in."
        if counted[1]
        else "None."
    )


def _scored(lake: "Lake", tables: set[str], table: str, since: datetime, now: datetime) -> str:
    import polars as pl

    if table not in tables:
        return "Nothing was ever scored in batch."
    rows = lake.read(table).filter(pl.col("scored_at").is_between(since, now)).select(pl.len()).collect().item()
    return f"{rows:,} predictions." if rows else "None."


def _alarms(file: Path, name: str, since: datetime, now: datetime) -> str:
    counts: dict[str, int] = {}
    titles: dict[str, None] = {}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        with suppress(json.JSONDecodeError, KeyError, TypeError, ValueError):
            alert = json.loads(line)
            if (
                alert["model"] == name
                and since <= datetime.fromisoformat(alert["at"]) <= now
                and alert["severity"] != "info"
            ):
                counts[alert["severity"]] = counts.get(alert["severity"], 0) + 1
                titles[alert["title"].replace("_", " ")] = None
    if not counts:
        return "None."
    told = ", ".join(f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in sorted(counts.items()))
    return f"{told}: {'; '.join(list(titles)[-3:])}."


def _drift(status: ModelStatus | None) -> str:
    if status is None or not status.drift:
        return "Not measured yet."
    newest = status.drift[-1]
    dates = f"{newest.since:%Y-%m-%d} to {newest.until:%Y-%m-%d}"
    if newest.verdict == "not judged":
        return f"Not judged for {dates}: {newest.reason}"
    if newest.verdict == "no drift":
        return f"In {dates} the {newest.rows:,} rows looked like those it learned from."
    moved = f"{newest.drifted} of {newest.judged} of what it looks at"
    return (
        f"In {dates}, {moved} looked unlike what it learned from ({newest.drifted_importance:.0%} of the importance)."
    )


def _labels(status: ModelStatus | None, subject: Subject) -> str:
    if status is None or not status.performance:
        return "No true values have come yet, so nobody knows how good its answers in service are."
    newest = status.performance[-1]
    dates = f"{newest.since:%Y-%m-%d} to {newest.until:%Y-%m-%d}"
    came = f"{newest.rows:,} of {newest.scored_rows:,} answers of {dates} have a true value"
    if newest.value is None:
        return f"{came}. {newest.reason}"
    verdict = {"fine": "as expected", "below": "worse than expected", "not judged": "too few to judge"}[newest.verdict]
    return f"{came}: {metric_in_words(newest.metric, newest.value, subject)}, {verdict}."
