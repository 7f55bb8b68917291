"""The same LightGBM model served by others: `mlflow models serve`, BentoML and MLServer beside our server and the echo.

    python benchmarks/serving_peers.py [--peers FOLDER] [--rounds 5] [--requests 1000]

300 trees over 30 features. Ours is the server as people run it (`python -m ml_platform.serving`): an API key,
validation, strings to codes, metrics, an audit line and a logged record per answer. The others run in an environment
of their own, made from the package registry in a temporary folder or once in `--peers`; they log nothing and let
anybody in. MLflow has two: what its users log, a scikit-learn pipeline that takes the same named columns, strings
among them, and checks its signature; and LightGBM's own file behind an unnamed tensor, which spares it the pandas
DataFrame. That file is what BentoML and MLServer load too, and these three are sent the codes as numbers. All have one
worker and one thread for the trees, and must give the same scores. They take turns under the same eight connections;
CPU time and memory are of all processes of a server.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from _load import ECHO, Cost, Server, free_port, message, server
from _peers import environment, peers_folder, versions
from _plain_model import (
    CATEGORIES,
    NUMBERS,
    STRINGS,
    boosted_model,
    encoded,
    plain_rows,
    publish_plain,
    write_plain,
)
from _results import write_section

from ml_platform.governance.keys import KeyStore
from ml_platform.settings import Settings

WANTED_CHEAPER = 60  # times `mlflow models serve`
MLFLOW = "mlflow models serve, named columns"
CHEAP = {"FastAPI echo", "ours"}  # asked more often, since the system counts CPU time in steps of 10 ms
MORE = 8
LIGHTGBM = "lightgbm==4.7.*"
PACKAGES = {
    "mlflow": (f"mlflow=={version('mlflow')}", LIGHTGBM, f"scikit-learn=={version('scikit-learn')}"),
    "bentoml": ("bentoml", LIGHTGBM),
    "mlserver": ("mlserver", "mlserver-lightgbm", LIGHTGBM),
}
BENTO = """
import bentoml, lightgbm, numpy as np

@bentoml.service(workers=1, traffic={"timeout": 60})
class Plain:
    def __init__(self):
        self.model = lightgbm.Booster(model_file=MODEL)

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> list[float]:
        return self.model.predict(np.array(rows), num_threads=1).tolist()
"""
SAVE_TENSOR_FOR_MLFLOW = """
import sys, lightgbm, mlflow, numpy as np
from mlflow.models import infer_signature
model = lightgbm.Booster(model_file=sys.argv[1])
X = np.zeros((1, model.num_feature()))
mlflow.lightgbm.save_model(model, sys.argv[2], signature=infer_signature(X, model.predict(X)), pip_requirements=[])
"""


class Contender(NamedTuple):
    """A running server, and how it is asked."""

    server: Server
    messages: list[bytes]
    score: Any  # body of an answer → score


def main() -> None:
    """Start all, measure in turns, print, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder that keeps the others' environments")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="per round and server")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md alone")
    options = parser.parse_args()
    with ExitStack() as stack:
        peers = stack.enter_context(peers_folder(options.peers))
        pythons = {name: environment(peers, name, packages) for name, packages in PACKAGES.items()}
        found = ", ".join(
            versions(python, [name] if name != "mlserver" else [name, "mlserver-lightgbm"])
            for name, python in pythons.items()
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_plain(folder / "model.txt")
        contenders = {
            "FastAPI echo": stack.enter_context(echo(folder)),
            "ours": stack.enter_context(ours(folder)),
            "MLServer": stack.enter_context(mlserver(pythons["mlserver"], folder)),
            "BentoML": stack.enter_context(bentoml(pythons["bentoml"], folder)),
            "mlflow models serve, tensor": stack.enter_context(mlflow(pythons["mlflow"], folder, "tensor")),
            MLFLOW: stack.enter_context(mlflow(pythons["mlflow"], folder, "named")),
        }
        compare_scores(contenders)
        rounds = [
            {
                name: one.server.measure(one.messages, options.requests * (MORE if name in CHEAP else 1))
                for name, one in contenders.items()
            }
            for _ in range(options.rounds + 1)
        ][1:]  # the first one warms up
        lines = [
            f"One row of 30 features, 300 trees, one worker each, the same scores; medians of {options.rounds} turns. "
            f"Others: {found}. The load average was {os.getloadavg()[0]:.1f} at the end: compare CPU.",
            "",
            *table(contenders, rounds),
        ]
    print("\n".join(lines))
    if not options.no_write:
        packages = ("fastapi", "uvicorn", "onnxruntime", "lightgbm")
        write_section("Serving beside the peers", "python benchmarks/serving_peers.py", lines, packages=packages)


@contextmanager
def echo(folder: Path) -> Iterator[Contender]:
    """A FastAPI app that gives back what it is sent, validated as a `dict`."""
    (folder / "echo_app.py").write_text(ECHO)
    command = [sys.executable, "-m", "uvicorn", "echo_app:app", "--app-dir", str(folder), "--no-access-log"]
    with server([*command, "--port", "{port}"], ready="/docs") as running:
        yield Contender(running, [message("/echo", msgspec.json.encode(row)) for row in plain_rows()], None)


@contextmanager
def ours(folder: Path) -> Iterator[Contender]:
    """This project's server, with an API key."""
    settings = Settings(home=folder / "home")
    publish_plain(settings)
    _, token = KeyStore(settings.keys_dir).create("benchmark", roles=["predict"])
    headers = f"Authorization: Bearer {token}\r\n"
    command = [sys.executable, "-m", "ml_platform.serving", "--port", "{port}"]
    with server(command, {"ML_PLATFORM_HOME": str(settings.home)}) as running:
        messages = [message("/predict/plain", msgspec.json.encode(row), headers) for row in plain_rows()]
        yield Contender(running, messages, lambda answer: answer["predictions"][0]["probability"])


@contextmanager
def mlserver(python: Path, folder: Path) -> Iterator[Contender]:
    """MLServer with its LightGBM runtime, in one process."""
    home = folder / "mlserver"
    home.mkdir()
    settings = {
        "name": "plain",
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": str(folder / "model.txt")},
    }
    (home / "model-settings.json").write_text(json.dumps(settings))
    (home / "settings.json").write_text(json.dumps({"debug": False, "parallel_workers": 0, "host": "127.0.0.1"}))
    environment = {
        "OMP_NUM_THREADS": "1",
        "MLSERVER_HTTP_PORT": "{port}",
        "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()),
    }
    with server([str(python.with_name("mlserver")), "start", str(home)], environment, ready="/v2/health/ready") as it:
        tensor = {"name": "x", "shape": [1, len(plain_rows()[0])], "datatype": "FP64"}
        bodies = [json.dumps({"inputs": [{**tensor, "data": encoded(row)}]}).encode() for row in plain_rows()]
        messages = [message("/v2/models/plain/infer", body) for body in bodies]
        yield Contender(it, messages, lambda answer: answer["outputs"][0]["data"][0])


@contextmanager
def bentoml(python: Path, folder: Path) -> Iterator[Contender]:
    """A BentoML service of one method."""
    home = folder / "bento"
    home.mkdir()
    (home / "service.py").write_text(BENTO.replace("MODEL", repr(str(folder / "model.txt"))))
    environment = {"BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1", "BENTOML_HOME": str(home)}
    command = [str(python.with_name("bentoml")), "serve", "service:Plain", "--working-dir", str(home)]
    with server([*command, "--host", "127.0.0.1", "--port", "{port}"], environment, ready="/readyz") as running:
        messages = [message("/predict", json.dumps({"rows": [encoded(row)]}).encode()) for row in plain_rows()]
        yield Contender(running, messages, lambda answer: answer[0])


@contextmanager
def mlflow(python: Path, folder: Path, kind: str) -> Iterator[Contender]:
    """MLflow's scoring server: "named" columns for a scikit-learn pipeline, or an unnamed "tensor" for the booster."""
    saved = folder / f"mlflow_{kind}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:/usr/bin:/bin"}
    sent: list[dict[str, Any]]
    if kind == "named":
        save_pipeline(saved)
        sent = [{"dataframe_split": {"columns": list(row), "data": [list(row.values())]}} for row in plain_rows()]
    else:
        save = [python, "-c", SAVE_TENSOR_FOR_MLFLOW, folder / "model.txt", saved]
        subprocess.run(save, check=True, env=quiet, cwd=folder, stderr=subprocess.DEVNULL)
        sent = [{"inputs": [encoded(row)]} for row in plain_rows()]
    command = [str(python.with_name("mlflow")), "models", "serve", "-m", str(saved), "--env-manager", "local"]
    with server([*command, "-h", "127.0.0.1", "-w", "1", "-p", "{port}"], quiet, ready="/ping") as running:
        messages = [message("/invocations", json.dumps(body).encode()) for body in sent]
        yield Contender(running, messages, lambda answer: _positive(answer["predictions"][0]))


def save_pipeline(path: Path) -> None:
    """Save what a user logs: a scikit-learn pipeline that takes the rows as they are, with its signature."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    rows = pd.DataFrame(plain_rows())
    strings = list(rows.columns[NUMBERS:])
    encoder = OrdinalEncoder(categories=[list(CATEGORIES)] * STRINGS)
    columns = make_column_transformer(("passthrough", list(rows.columns[:NUMBERS])), (encoder, strings)).fit(rows)
    pipeline = make_pipeline(columns, boosted_model(NUMBERS + STRINGS).set_params(n_jobs=1))
    mlflow.sklearn.save_model(
        pipeline,
        str(path),
        signature=infer_signature(rows, pipeline.predict_proba(rows)),
        serialization_format="cloudpickle",  # the default, skops, takes no LightGBM
        pyfunc_predict_fn="predict_proba",
        pip_requirements=[],
    )


def _positive(said: Any) -> Any:
    """The probability of the second class, of both or alone."""
    return said[1] if isinstance(said, list) else said


def compare_scores(contenders: dict[str, Contender]) -> None:
    """Stop when two contenders give a row different scores."""
    for place in range(20):
        scores = {name: ask(one, place) for name, one in contenders.items() if one.score is not None}
        expected = scores["ours"]
        if not all(math.isclose(expected, score, rel_tol=1e-9) for score in scores.values()):
            raise SystemExit(f"row {place}: the scores differ: {scores}")


def ask(contender: Contender, place: int) -> float:
    """Score of a row."""
    head, _, body = contender.messages[place].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if not line.startswith("Content-Length"))
    url = f"http://127.0.0.1:{contender.server.port}{first.split()[1]}"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        score: float = contender.score(json.load(answer))
    return score


def table(contenders: dict[str, Contender], rounds: Sequence[dict[str, Cost]]) -> list[str]:
    """Markdown table of medians, ratios taken within each round."""
    lines = [
        "| server | CPU µs per request | times ours | requests a second | p50 ms | p99 ms | MiB | ready after, s |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for name, one in contenders.items():
        cpu, p50, p99, elapsed = (statistics.median(found[name][unit] for found in rounds) for unit in range(4))
        ratio = statistics.median(found[name].cpu / found["ours"].cpu for found in rounds)
        lines.append(
            f"| {name} | {cpu * 1e6:,.0f} | {ratio:.2f} | {1 / elapsed:,.0f} | {p50 * 1e3:.2f} | {p99 * 1e3:.2f} "
            f"| {one.server.memory():.0f} | {one.server.ready:.1f} |"
        )
    cheaper = statistics.median(found[MLFLOW].cpu / found["ours"].cpu for found in rounds)
    missed = ", missed" if cheaper < WANTED_CHEAPER else ""
    return [*lines, "", f"Beside `{MLFLOW}` wanted: {WANTED_CHEAPER} times cheaper; {cheaper:.0f}{missed}."]


if __name__ == "__main__":
    main()
