"""Features as a service beside Feast's precomputed vectors, on SQLite and on one Redis, over HTTP and in process.

One view of five features, and a service of three, for 50,000 entities. Feast's services have `precompute_online=True`:
it keeps one vector for each key of a service, ours reads the views. Keys are drawn anew for every call.

Over HTTP both servers have one worker and get the same bytes at `/get-online-features`; what our own route
(`/features/<name>/lookup`, by row, with freshness) costs is beside. In process ours is `look_up` with its columns,
Feast's `get_online_features` and `to_dict`. CPU is that of the server (or of the process that asks) and of Redis.

    python benchmarks/feature_service.py [--peers FOLDER] [--rounds 5] [--entities 50000]

Feast lives in an environment of its own, made from the package registry in a temporary folder, or once in `--peers`.
Needs `redis-server`.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from _contender import Answers, Contender, serve
from _peers import environment, peers_folder, versions
from _results import write_section
from online import FEAST, MANY, VIEWS, drawn, write_rows
from redis import Redis

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ml_platform.features.online.open import open_online_store  # noqa: E402
from ml_platform.features.online.store import ViewSchema  # noqa: E402
from ml_platform.features.services.lookup import look_up  # noqa: E402
from ml_platform.features.services.read import current_plan  # noqa: E402
from ml_platform.registry.feature_services import FeatureService, FeatureServiceStore, ServedView  # noqa: E402
from ml_platform.registry.manifest import Input  # noqa: E402
from ml_platform.registry.releases import ReleaseStore  # noqa: E402
from ml_platform.settings import Settings  # noqa: E402
from ml_platform_tests.ports import free_port  # noqa: E402
from ml_platform_tests.redis_server import running_redis  # noqa: E402

SERVICES = {"service_1": 1, "service_3": 3}  # name → number of views
WANTED = 3.0  # times faster and cheaper
TYPES = {"Float64": "number", "Int64": "integer", "String": "string"}
TICKS = os.sysconf("SC_CLK_TCK")


class OurService:
    """One of our services in process."""

    def __init__(self, home: str, uri: str, name: str) -> None:
        self._store = open_online_store(uri)
        services = FeatureServiceStore(ReleaseStore(Settings(home=Path(home)).releases_dir))
        self._plan = current_plan(name, services, self._store)

    def write(self, view: str, path: str) -> None:
        """See `Store.write`; rows are written by `set_up`."""

    def read(self, keys: Sequence[str]) -> Answers:
        """See `Store.read`."""
        rows: list[dict[str, Any]] = [{"key": key} for key in keys]
        columns: dict[str, list[Any]] = {"key": list(keys)}
        for found in look_up(self._plan, rows, self._store.read, datetime.now(UTC)):
            columns |= found.columns()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def set_up(settings: Settings, folder: Path) -> None:
    """Write the rows of all views, and publish the services."""
    with open_online_store(settings.online_uri) as store:
        for view, features in VIEWS.items():
            columns = tuple(Input(name=name, type=TYPES[kind]) for name, kind in features.items())  # type: ignore[arg-type]
            schema = ViewSchema(
                entity=(Input(name="key", type="string"),),
                event_time="event_time",
                columns=columns,
                ttl_seconds=timedelta(days=7).total_seconds(),
            )
            frame = pl.read_parquet(folder / f"{view}.parquet")
            store.write(view, ("key",), frame, view_hash="benchmark", schema=schema)
    services = FeatureServiceStore(ReleaseStore(settings.releases_dir))
    for name, count in SERVICES.items():
        views = tuple(
            ServedView(name=view, view=view, view_hash="benchmark", keys={"key": "key"}, features=tuple(features))
            for view, features in list(VIEWS.items())[:count]
        )
        services.publish(FeatureService(name=name, description="", owner="team:x", views=views), by="benchmark")


class Served:
    """A server that answers look-ups, from the side that asks."""

    def __init__(self, process: subprocess.Popen[Any], port: int, redis: Redis) -> None:
        self._process = process
        self._redis = redis
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, body: bytes) -> bytes:
        """Ask, and give the answer."""
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:500]!r}")
        return content

    def time(self, path: str, bodies: Sequence[bytes]) -> dict[str, float]:
        """Ask with each body; gives the median seconds, and the mean on the CPU of server and Redis."""
        taken, before = [], self._cpu()
        for body in bodies:
            start = time.perf_counter()
            self.post(path, body)
            taken.append(time.perf_counter() - start)
        return {"seconds": statistics.median(taken), "cpu": (self._cpu() - before) / len(bodies)}

    def _cpu(self) -> float:
        info: dict[str, float] = self._redis.info("cpu")
        return tree_cpu(self._process.pid) + info["used_cpu_user"] + info["used_cpu_sys"]


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process and of all that it started."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        stats[int(path.parent.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS)
    members = {pid}
    while more := {one for one, (parent, _) in stats.items() if parent in members} - members:
        members |= more
    return sum(stats[one][1] for one in members if one in stats)


@contextmanager
def started(command: Sequence[str], port: int, redis: Redis, **environment: str) -> Iterator[Served]:
    """A server that listens on a port, until the block ends."""
    quiet = {**os.environ, "DO_NOT_TRACK": "1", "FEAST_USAGE": "False", **environment}
    process = subprocess.Popen(command, env=quiet, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    served, deadline = Served(process, port, redis), time.monotonic() + 180
    try:
        while True:
            try:
                served.post("/get-online-features", body_of("service_1", ["N000001"]))
                break
            except (OSError, http.client.HTTPException, RuntimeError):
                served._connection.close()
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield served
    finally:
        process.terminate()
        process.wait(60)


def body_of(service: str, keys: Sequence[str]) -> bytes:
    """A request of Feast's clients."""
    return json.dumps({"feature_service": service, "entities": {"key": keys}, "full_feature_names": True}).encode()


def row_body(keys: Sequence[str]) -> bytes:
    """The same for our own route."""
    return json.dumps({"rows": [{"key": key} for key in keys]}).encode()


def values_of(answer: bytes) -> dict[str, list[Any]]:
    """Values by column of an answer in Feast's shape."""
    found = json.loads(answer)
    return dict(zip(found["metadata"]["feature_names"], (one["values"] for one in found["results"]), strict=True))


def compare_servers(ours: Served, feast: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Ask both in turns; gives figures of (ours, Feast's, our own route) by service and number of keys."""
    draw = drawn(options.entities, 2)
    figures: dict[str, Any] = {}
    for name in SERVICES:
        body = body_of(name, [f"N{number:06}" for number in range(50)])
        one, other = (values_of(server.post("/get-online-features", body)) for server in (ours, feast))
        if one != other:
            raise SystemExit(f"{name}: the answers differ: {str(one)[:500]} {str(other)[:500]}")
        for keys, calls in ((1, 600), (MANY, 100)):
            rounds = []
            for _ in range(options.rounds):
                asked = [known(row, options.entities) for row in draw(calls, keys)]
                bodies = [body_of(name, row) for row in asked]
                rounds.append([
                    ours.time("/get-online-features", bodies),
                    feast.time("/get-online-features", bodies),
                    ours.time(f"/features/{name}/lookup", [row_body(row) for row in asked]),
                ])  # fmt: skip
            figures[f"{name}, {keys}"] = rounds
    return figures


def compare_in_process(ours: Contender, feast: Contender, options: argparse.Namespace) -> dict[str, Any]:
    """Read by both in turns."""
    draw = drawn(options.entities, 3)
    asked = known(draw(1, 500)[0], options.entities)
    if ours.read(asked) != feast.read(asked):
        raise SystemExit("in process: the answers differ")
    figures: dict[str, Any] = {}
    for keys, calls in ((1, 1000), (MANY, 50)):
        rounds = []
        for _ in range(options.rounds):
            lists = [known(row, options.entities) for row in draw(calls, keys)]
            rounds.append([ours.time(lists), feast.time(lists)])
        figures[str(keys)] = rounds
    return figures


def known(keys: Sequence[str], entities: int) -> list[str]:
    """Keys that are there: Feast refuses a precomputed service as soon as one key has no vector."""
    return [f"N{int(key[1:]) % entities:06}" for key in keys]


def line(label: str, rounds: list[list[dict[str, float]]]) -> str:
    """One row of the table: medians, and ratios taken within each round."""
    ours, feast = (statistics.median(one[side]["seconds"] for one in rounds) * 1e6 for side in (0, 1))
    faster, cheaper = (statistics.median(one[1][unit] / one[0][unit] for one in rounds) for unit in ("seconds", "cpu"))
    own = ""
    if len(rounds[0]) > 2:
        own = " / ".join(
            f"{statistics.median(one[1][unit] / one[2][unit] for one in rounds):.1f}" for unit in ("seconds", "cpu")
        )
    missed = "" if min(faster, cheaper) >= WANTED else ", missed"
    return f"| {label} | {ours:,.0f} | {feast:,.0f} | {faster:.1f} | {cheaper:.1f}{missed} | {own} |"


def main() -> None:
    """Run all on both stores, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder that keeps Feast's environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--entities", type=int, default=50_000)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md alone")
    options = parser.parse_args()
    if options.child:
        serve(OurService(*options.child))
        return
    head = "| look-up | ours, µs | Feast, µs | times faster | on the CPU: times cheaper | our own route: both |"
    lines = [head, "|---|---|---|---|---|---|"]
    with ExitStack() as stack:
        python = environment(stack.enter_context(peers_folder(options.peers)), "feast", FEAST)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        uri = stack.enter_context(running_redis(folder))
        redis = stack.enter_context(Redis.from_url(uri))
        for view, path in write_rows(folder, options.entities)[0].items():
            Path(path).rename(folder / f"{view}.parquet")
        for store, online, address in (
            ("SQLite", f"sqlite:///{folder}/online.db", "sqlite"),
            ("Redis", uri, uri.removeprefix("redis://").removesuffix("/0")),
        ):
            home = folder / store
            peer = [str(folder), address, json.dumps(VIEWS)]
            script = str(Path(__file__).with_name("_feast_service.py"))
            set_up(Settings(home=home, online_uri=online), folder)
            subprocess.run([str(python), script, "setup", *peer], check=True, cwd=Path(__file__).parent)
            ports = free_port(), free_port()
            place = {"ML_PLATFORM_HOME": str(home), "ML_PLATFORM_ONLINE_URI": online}
            ours = [sys.executable, "-m", "ml_platform.serving", "--port", str(ports[0]), "--log-level", "error"]
            feast = [str(python), script, "http", *peer, str(ports[1])]
            with started(ours, ports[0], redis, **place) as one, started(feast, ports[1], redis) as other:
                for label, rounds in compare_servers(one, other, options).items():
                    lines.append(line(f"{store}, HTTP: {label}", rounds))
            for name in SERVICES:
                child = [sys.executable, __file__, "--child", str(home), online, name]
                with (
                    Contender(child) as one_store,
                    Contender([str(python), script, "read", *peer, name]) as other_store,
                ):
                    for keys, rounds in compare_in_process(one_store, other_store, options).items():
                        lines.append(line(f"{store}, in process: {name}, {keys}", rounds))
        named = versions(python, ("feast", "pandas", "redis"))
    about = (
        f"`service_1` has one view of five features, `service_3` three; {options.entities:,} entities, 1 or {MANY} "
        f"keys a call, drawn anew, answers equal; p50 of each turn, median of {options.rounds} turns. Beside {named}, "
        "with `precompute_online=True`: one vector for each key of a service, so that three views cost it one read. "
        "Over HTTP one worker each and the same bytes; in process without HTTP on both sides. Wanted: 3 times, by "
        "latency and by CPU. Latency over HTTP includes the client's 100 to 200 µs; CPU is that of server and Redis, "
        "in process of the process alone. The last column is `/features/<name>/lookup` by row with freshness, beside "
        f"Feast: times faster / cheaper. The load average was {os.getloadavg()[0]:.1f} at the end."
    )
    print("\n".join(lines))
    if not options.no_write:
        command = "python benchmarks/feature_service.py"
        write_section("Features as a service", command, [about, "", *lines], packages=("msgspec", "redis"))


if __name__ == "__main__":
    main()
