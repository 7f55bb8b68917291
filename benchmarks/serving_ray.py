"""The same app behind Ray Serve's proxy: what a request costs there, beside `python -m ml_platform.serving`.

    python benchmarks/serving_ray.py [--rounds 5] [--requests 800]

300 trees over 30 features, an API key, one worker and one replica, started as people start them. Both take turns under
the same eight connections; CPU time and memory are of all processes of a server, Ray's own among them.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import msgspec
import yaml
from _load import CONNECTIONS, free_port, message, server
from _plain_model import plain_rows, publish_plain
from _results import write_section

from ml_platform.governance.keys import KeyStore
from ml_platform.serving.ray_app import default_config
from ml_platform.settings import Settings

PLAIN, RAY = "`python -m ml_platform.serving`", "Ray Serve"
MORE = 8  # times that the plain server is asked, since the system counts CPU time in steps of 10 ms
ROWS = {1: 1, 1000: 40}  # rows of a request → how many times fewer of such requests


def main() -> None:
    """Start both, measure in turns, print, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=800, help="of one row, per round and server")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray-") as temporary:  # Ray's sockets need a short path
        folder = Path(temporary)
        settings = Settings(home=folder / "home")
        publish_plain(settings)
        _, token = KeyStore(settings.keys_dir).create("benchmark", roles=["predict"])
        headers = f"Authorization: Bearer {token}\r\n"
        messages = {
            count: [message("/predict/plain", msgspec.json.encode(body), headers) for body in bodies(count)]
            for count in ROWS
        }
        environment = {"ML_PLATFORM_HOME": str(settings.home), "RAY_TMPDIR": temporary, "TMPDIR": temporary}
        port = free_port()
        on_ray = [sys.executable, "-m", "ml_platform.serving.ray_app", str(one_replica(folder, port))]
        with (
            server([sys.executable, "-m", "ml_platform.serving", "--port", "{port}"], environment) as plain,
            server(on_ray, environment, port=port) as ray,
        ):
            servers = {PLAIN: plain, RAY: ray}
            rounds = [
                {
                    (count, name): running.measure(
                        messages[count], options.requests // fewer * (MORE if name == PLAIN else 1)
                    )
                    for count, fewer in ROWS.items()
                    for name, running in servers.items()
                }
                for _ in range(options.rounds + 1)
            ][1:]  # the first one warms up
            lines = [
                f"One replica and one worker, medians of {options.rounds} turns under {CONNECTIONS} connections. "
                f"The load average was {os.getloadavg()[0]:.1f} at the end: compare CPU.",
                "",
                "| request | server | CPU µs per request | times plain | requests a second | p50 ms | p99 ms |",
                "|---|---|---|---|---|---|---|",
            ]
            for count in ROWS:
                for name in servers:
                    cpu, p50, p99, elapsed = (
                        statistics.median(found[count, name][unit] for found in rounds) for unit in range(4)
                    )
                    ratio = statistics.median(found[count, name].cpu / found[count, PLAIN].cpu for found in rounds)
                    lines.append(
                        f"| {count:,} row{'s' * (count > 1)} | {name} | {cpu * 1e6:,.0f} | {ratio:.1f} "
                        f"| {1 / elapsed:,.0f} | {p50 * 1e3:.1f} | {p99 * 1e3:.1f} |"
                    )
            told = [f"{name} {one.memory():,.0f} MiB, ready after {one.ready:.0f} s" for name, one in servers.items()]
            lines += ["", "All processes: " + "; ".join(told) + "."]
    print("\n".join(lines))
    if not options.no_write:
        packages = ("ray", "fastapi", "uvicorn", "onnxruntime")
        write_section("Serving on Ray Serve", "python benchmarks/serving_ray.py", lines, packages=packages)


def bodies(count: int) -> list[dict[str, object]]:
    """Requests of so many rows."""
    rows = plain_rows()
    return [*rows] if count == 1 else [{"rows": (rows * count)[:count]}]


def one_replica(folder: Path, port: int) -> Path:
    """Write the delivered configuration with another port and a single replica."""
    config = yaml.safe_load(default_config().read_text(encoding="utf-8"))
    config["http_options"]["port"] = port
    config["applications"][0]["deployments"][0]["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
    path = folder / "ray_serve.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
