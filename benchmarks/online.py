"""Online look-ups and writes beside Feast, on SQLite and on one Redis: same rows, same keys, the same answers.

Three views of five features for 50,000 entities. Ours is asked as serving asks it (`Lookups.add`: the values of all
views by their full names, nulls where an entity is unknown or older than the TTL), Feast by `get_online_features` and
`to_dict`. Keys are drawn anew for every call, so that hardly any row is still in our store's memory; what a call costs
when all are is said beside. Writes go through `store.write` and `write_to_online_store`, from Parquet file to store,
each with the check that time never goes back.

    python benchmarks/online.py [--peers FOLDER] [--rounds 5] [--entities 50000]

Every store has a process of its own, and they take turns. Feast lives in an environment of its own, made from the
package registry in a temporary folder, or once in `--peers`. Needs `redis-server`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from _contender import Answers, Contender, serve
from _peers import environment, peers_folder, versions
from _results import write_section
from redis import Redis

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ml_platform.features.online.open import open_online_store  # noqa: E402
from ml_platform.registry.manifest import Feature, Manifest, ViewLookup  # noqa: E402
from ml_platform.serving.inputs.feature_lookup import Lookups  # noqa: E402
from ml_platform_tests.redis_server import running_redis  # noqa: E402
from ml_platform_tests.serving import releases  # noqa: E402

FEAST = ("feast[redis]==0.67.*", "pandas<3")
KINDS = {"share": "Float64", "mean": "Float64", "sum": "Float64", "count": "Int64", "state": "String"}
VIEWS = {f"view_{number}": KINDS for number in range(3)}
TTL = timedelta(days=7)
MANY = 100
WANTED = {"1 entity": {"SQLite": 10, "Redis": 6}, f"{MANY} entities": {"SQLite": 8, "Redis": 8}}
WANTED_ROWS = 150_000  # a second
WRITES = 4  # the first into empty views


class OurStore:
    """This project's store, as serving reads it and publishing writes it."""

    def __init__(self, uri: str) -> None:
        self._store = open_online_store(uri)
        manifest = msgspec.json.decode(releases.bundle(1)["manifest.json"], type=Manifest)
        lookups = tuple(
            ViewLookup(
                view=view,
                view_hash="benchmark",
                keys={"key": "key"},
                features=tuple(f"{view}__{name}" for name in features),
                ttl_seconds=TTL.total_seconds(),
            )
            for view, features in VIEWS.items()
        )
        features = tuple(
            Feature(
                name=name, kind="categorical" if name.endswith("__state") else "numeric", source=f"view:{lookup.view}"
            )
            for lookup in lookups
            for name in lookup.features
        )
        self._lookups = Lookups(msgspec.structs.replace(manifest, lookups=lookups, features=features), self._store)

    def write(self, view: str, path: str) -> None:
        """See `Store.write`."""
        self._store.write(view, ("key",), pl.read_parquet(path), view_hash="benchmark")

    def read(self, keys: Sequence[str]) -> Answers:
        """See `Store.read`."""
        rows: Answers = [{"key": key} for key in keys]
        self._lookups.add(rows, [datetime.now(UTC)] * len(rows))
        return rows


def write_rows(folder: Path, entities: int) -> list[dict[str, str]]:
    """Write files of every entity's row in each view, each an hour newer than the one before, with other values."""
    random = np.random.default_rng(0)
    now = datetime.now(UTC).replace(microsecond=0)
    turns = []
    for turn in range(WRITES):
        paths = {}
        for view in VIEWS:
            frame = pl.DataFrame(
                {
                    "key": [f"N{number:06}" for number in range(entities)],
                    "share": random.random(entities),
                    "mean": random.normal(size=entities),
                    "sum": random.normal(size=entities) * 1e6,
                    "count": random.integers(0, 1000, entities),
                    "state": random.choice(["AL", "CA", "NJ", "NY"], entities).astype(object),
                },
                schema_overrides={"state": pl.String},
            ).with_columns(pl.lit(now - timedelta(hours=WRITES - turn)).dt.cast_time_unit("us").alias("event_time"))
            path = folder / f"{view}_{turn}.parquet"
            frame.write_parquet(path)
            paths[view] = str(path)
        turns.append(paths)
    return turns


def drawn(entities: int, seed: int) -> Callable[[int, int], list[list[str]]]:
    """Give lists of keys, one in a hundred of them unknown to the store."""
    random = np.random.default_rng(seed)

    def draw(calls: int, keys: int) -> list[list[str]]:
        numbers = random.integers(0, round(entities * 1.01), (calls, keys))
        return [[f"N{number:06}" for number in row] for row in numbers.tolist()]

    return draw


def compare_store(name: str, ours: Contender, feast: Contender, options: argparse.Namespace) -> dict[str, Any]:
    """Write and read by both in turns; gives every figure as pairs (ours, Feast's)."""
    pair = (ours, feast)
    rows = options.entities * len(VIEWS)
    written = [[write(contender, paths, options.redis) for contender in pair] for paths in options.turns]
    keys = drawn(options.entities, 1)(1, 1000)[0]
    answers = [contender.read(keys) for contender in pair]
    if answers[0] != answers[1]:
        different = next((one, two) for one, two in zip(*answers, strict=True) if one != two)
        raise SystemExit(f"{name}: the answers differ: {different}")
    draw = drawn(options.entities, 2)
    for contender in pair:
        contender.time(draw(200, 1))
    figures: dict[str, list[list[dict[str, float]]]] = {"1 entity": [], f"{MANY} entities": [], "again": []}
    for _ in range(options.rounds):
        one, many = draw(1000, 1), draw(50, MANY)
        figures["1 entity"].append([contender.time(one) for contender in pair])
        figures[f"{MANY} entities"].append([contender.time(many) for contender in pair])
        figures["again"].append([contender.time(one[:1] * 1000) for contender in pair])
    return {"rows": rows, "written": written, "read": figures}


def write(contender: Contender, paths: dict[str, str], redis: Redis) -> dict[str, float]:
    """Write to all views; the CPU seconds are those of the process and of the Redis server, which waits on SQLite."""

    def used() -> float:
        cpu: dict[str, float] = redis.info("cpu")
        return cpu["used_cpu_user"] + cpu["used_cpu_sys"]

    before = used()
    taken = contender.write(paths)
    return {**taken, "cpu": taken["cpu"] + used() - before}


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown of medians, ratios taken within each round."""
    lines = ["| look-up of 3 views | ours, µs | Feast, µs | times faster | wanted | on the CPU: times cheaper |"]
    lines += ["|---|---|---|---|---|---|"]
    for store, figures in found.items():
        for what, wanted in [*WANTED.items(), ("again", {})]:
            rounds = figures["read"][what]
            ours, feast = (statistics.median(pair[side]["seconds"] for pair in rounds) * 1e6 for side in (0, 1))
            ratio, cheaper = (
                statistics.median(feasts[unit] / our[unit] for our, feasts in rounds) for unit in ("seconds", "cpu")
            )
            label = what if wanted else "1 entity, the same again"
            aim = verdict(ratio, wanted[store]) if wanted else ""
            lines.append(f"| {store}: {label} | {ours:,.0f} | {feast:,.0f} | {ratio:.1f} | {aim} | {cheaper:.1f} |")
    lines += ["", "| writing | ours, rows a second | Feast | times faster | wanted | ours, a CPU second | Feast |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for store, figures in found.items():
        first, *others = figures["written"]
        best = [min((pair[side] for pair in others), key=lambda one: one["seconds"]) for side in (0, 1)]
        for what, pair in (("all new", first), (f"all newer, best of {len(others)}", best)):
            speed, other, each, other_each = (
                figures["rows"] / one[unit] for unit in ("seconds", "cpu") for one in pair
            )
            lines.append(
                f"| {store}: {what} | {speed:,.0f} | {other:,.0f} | {speed / other:.1f} "
                f"| {verdict(speed, WANTED_ROWS)} | {each:,.0f} | {other_each:,.0f} |"
            )
    return lines


def verdict(found: float, wanted: float) -> str:
    """What was wanted, and whether it was missed."""
    return f"≥ {wanted:,}" + ("" if found >= wanted else ", missed")


def main() -> None:
    """Run both on both stores, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder that keeps Feast's environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--entities", type=int, default=50_000)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md alone")
    options = parser.parse_args()
    if options.child:
        serve(OurStore(options.child))
        return
    found = {}
    with ExitStack() as stack:
        python = environment(stack.enter_context(peers_folder(options.peers)), "feast", FEAST)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(running_redis(folder))
        options.redis = stack.enter_context(Redis.from_url(redis))
        options.turns = write_rows(folder, options.entities)
        for name, uri, address in (
            ("SQLite", f"sqlite:///{folder}/online.db", "sqlite"),
            ("Redis", redis, redis.removeprefix("redis://").removesuffix("/0")),
        ):
            child = [str(Path(__file__).with_name("_feast_store.py")), str(folder), address, json.dumps(VIEWS)]
            with (
                Contender([sys.executable, __file__, "--child", uri]) as ours,
                Contender([str(python), *child]) as feast,
            ):
                found[name] = compare_store(name, ours, feast, options)
        peer = versions(python, ("feast", "pandas", "redis"))
    lines = [
        f"Three views of five features, {options.entities:,} entities, keys drawn anew for each call, answers equal; "
        f"p50 of each turn, median of {options.rounds} turns. Beside {peer}; one Redis without persistence. CPU "
        "seconds are the process' and Redis' together. The load average was "
        f"{os.getloadavg()[0]:.1f} at the end, which slows writing more than its CPU seconds tell.",
        "",
        *table(found),
    ]
    command = "python benchmarks/online.py"
    print("\n".join(lines))
    if not options.no_write:
        write_section("Online store beside Feast", command, lines, packages=("msgspec", "polars", "redis"))


if __name__ == "__main__":
    main()
