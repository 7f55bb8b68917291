"""Assets, checks, jobs, schedules and sensors: what Dagster makes of a project that has one of everything."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from docs.generator.markdown import page, table

EXAMPLE = Path(__file__).with_name("example")
# The example's own names, as the page writes them.
NAMES = {"a_model": "<model>", "a_view": "<view>", "a_table": "<table>", "b_table": "<table>"}
PARTS = {
    "Of each model": "a_model",
    "Of each feature view": "a_view",
    "Of each source table": "_table",
    "Of the platform": "",
}
_SCRIPT = "import sys; from docs.generator.dagster_page import describe; print(describe())"


class Item(msgspec.Struct, frozen=True):
    """Something that Dagster shows by name."""

    kind: str
    name: str
    description: str
    note: str = ""  # of a schedule its cron, of a check whether it blocks

    @property
    def title(self) -> str:
        """Its name, for any model, view or table."""
        return general(self.name)


def general(text: str) -> str:
    """Return a text with the example's names replaced.

    Examples
    --------
    >>> general("a_model_retrain")
    '<model>_retrain'
    """
    for name, word in NAMES.items():
        text = text.replace(name, word)
    return text


def prose(text: str) -> str:
    """Return a description with the example's names replaced, as code.

    Examples
    --------
    >>> prose("Starts a_model_retrain, as `a_model` wants.")
    'Starts `<model>_retrain`, as `<model>` wants.'
    """
    parts = re.split("(`[^`]*`)", text)
    words = "|".join(NAMES)
    return "".join(
        general(part if part.startswith("`") else re.sub(rf"[\w/]*(?:{words})[\w/]*", r"`\g<0>`", part))
        for part in parts
    )


def describe() -> str:
    """Load the example in this process, and return its items as JSON."""
    sys.path.insert(0, str(EXAMPLE))
    import dagster as dg
    from example.definitions import defs  # type: ignore[import-not-found]

    definitions: dg.Definitions = defs()
    repository = definitions.get_repository_def()
    graph = definitions.resolve_asset_graph()
    items = [
        Item("asset", key.to_user_string(), _first(graph.get(key).description)) for key in graph.get_all_asset_keys()
    ]
    for key in graph.asset_check_keys:
        check = graph.get(key)
        items.append(Item("check", key.to_user_string(), _first(check.description), "blocks" if check.blocking else ""))
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    items += [Item("job", job.name, _first(job.description)) for job in jobs]
    items += [
        Item("schedule", schedule.name, _first(schedule.description), str(schedule.cron_schedule))
        for schedule in repository.schedule_defs
    ]
    items += [Item("sensor", sensor.name, _first(sensor.description)) for sensor in repository.sensor_defs]
    return msgspec.json.encode(items).decode()


def _first(description: str | None) -> str:
    return (description or "").strip().split("\n\n")[0]


def items() -> list[Item]:
    """Return all items of the example, which a process of its own loads: it is another project than this one."""
    with tempfile.TemporaryDirectory() as home:
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _SCRIPT],
            env={**os.environ, "ML_PLATFORM_PROJECT": str(EXAMPLE), "ML_PLATFORM_HOME": home},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode:
        raise RuntimeError(f"the example project of the reference does not load:\n{run.stderr}")
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=list[Item])


def _part(item: Item) -> str:
    return next(title for title, word in PARTS.items() if word in item.name)


def _sections(shown: list[Item]) -> Iterator[str]:
    notes = {"check": "an error stops what follows", "schedule": "default (UTC)"}
    for part in PARTS:
        yield f"## {part}"
        for kind in ("asset", "check", "job", "schedule", "sensor"):
            chosen = {item.title: item for item in shown if item.kind == kind and _part(item) == part}
            if not chosen:
                continue
            yield f"### {kind.capitalize()}s {part.lower()}"
            note = [notes[kind]] if kind in notes else []
            rows = []
            for title, item in sorted(chosen.items()):
                extra = [f"`{item.note}`" if kind == "schedule" else ("yes" if item.note else "")] if note else []
                rows.append([f"`{title}`", prose(item.description), *extra])
            yield table([kind, "what it is" if kind == "asset" else "what it does", *note], rows)


def dagster_page() -> str:
    """Return the page of all that a project shows in Dagster."""
    return page(
        "Assets, jobs, schedules and sensors",
        """What a project shows in Dagster. `<model>`, `<view>` and `<table>` stand for your own names. Schedules
are those of the defaults; the keys `schedule`, `daily_at` and `on_drift` of [a model](model-keys.md) change or
turn them off.""",
        *_sections(items()),
    )
