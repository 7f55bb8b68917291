"""What scoring a table in batch costs: beside plain `predict` over a frame, by memory, on Ray, and beside Spark.

Everything scores the same orders of the same Delta table with the same three look-ups, point in time, by the same
LightGBM over 41 features, and writes the scores. Each runs in a process of its own; figures are processor seconds of
the process and what it started, since the machine is shared.

    python benchmarks/batch.py [--rows 2000000] [--large 20000000] [--spark /path/of/a/python/with/pyspark]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from _batch_world import CHANNELS, FEATURES, LOOKED_UP, MODEL, NUMBERS, build, feature_names, views
from _results import write_section

from ml_platform.compute import executor_session
from ml_platform.scoring.run import Wanted, score
from ml_platform.settings import Settings

TREES = {"usual": 300, "heavy": 900, "light": 30}


def ours(home: Path, out: Path) -> None:
    """`ml-platform score`, in process."""
    report = _score(home, str(out))
    assert report.refused == 0


def _score(home: Path, target: str, executor: str = "local"):
    wanted = Wanted(model=MODEL, source="raw/orders", target=target, executor=executor)
    return score(Settings(home=home), wanted, lambda: views(home / "views"))


def pandas_predict(home: Path, out: Path) -> None:
    """What a person writes: `merge_asof` for each view, then `predict` over the frame, on one thread."""
    import lightgbm
    import pandas as pd
    from deltalake import DeltaTable

    rows = DeltaTable(home / "lake/raw/orders").to_pandas().sort_values("at")
    for key in LOOKED_UP:
        known = DeltaTable(home / f"lake/features/of_{key}").to_pandas().sort_values("event_time")
        known = known.rename(columns={f"f{number}": f"of_{key}__f{number}" for number in range(FEATURES)})
        rows = pd.merge_asof(
            rows, known, left_on="at", right_on="event_time", by=key, tolerance=pd.Timedelta(days=30)
        ).drop(columns="event_time")
    rows["channel"] = rows["channel"].map({name: code for code, name in enumerate(CHANNELS)}).astype("float64")
    booster = lightgbm.Booster(model_file=home / "model.txt")
    rows["score"] = booster.predict(rows[feature_names()], num_threads=1)
    rows[["id", "at", "score"]].to_parquet(out)


def polars_predict(home: Path, out: Path) -> None:
    """The same with Polars, which is faster: `join_asof`, then `predict` over the matrix, on one thread."""
    import lightgbm
    import polars as pl

    rows = pl.scan_delta(str(home / "lake/raw/orders")).sort("at")
    for key in LOOKED_UP:
        known = pl.scan_delta(str(home / f"lake/features/of_{key}")).sort("event_time")
        known = known.rename({f"f{number}": f"of_{key}__f{number}" for number in range(FEATURES)})
        rows = rows.join_asof(known, left_on="at", right_on="event_time", by=key, tolerance="30d").drop("event_time")
    codes = pl.col("channel").replace_strict(list(CHANNELS), range(len(CHANNELS)), return_dtype=pl.Float64)
    frame = rows.with_columns(codes).collect()
    booster = lightgbm.Booster(model_file=home / "model.txt")
    scores = booster.predict(frame.select(feature_names()).to_numpy(), num_threads=1)
    frame.select("id", "at", pl.Series("score", np.asarray(scores))).write_parquet(out)


def spark(home: Path, out: Path) -> None:
    """`mlflow.pyfunc.spark_udf` on `local[2]`, over rows that are joined already: Spark has no as-of join."""
    import lightgbm
    import mlflow
    import polars as pl
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    session = (
        SparkSession.builder.master("local[2]").config("spark.driver.memory", "4g").config("spark.ui.enabled", "false")
    ).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    joined = str(out.with_name("joined.parquet"))
    model = str(out.with_name("mlflow_model"))
    booster = lightgbm.Booster(model_file=home / "model.txt")
    mlflow.lightgbm.save_model(booster, model, pip_requirements=[], signature=_signature(pl.scan_parquet(joined)))
    predict = mlflow.pyfunc.spark_udf(session, model, result_type="double", env_manager="local")
    frame = session.read.parquet(joined)
    print("READY", flush=True)
    frame.withColumn("score", predict(*feature_names())).select("id", "at", "score").write.parquet(str(out))


def _signature(rows):
    from mlflow.models import infer_signature

    few = rows.select(feature_names()).head(100).collect().to_pandas()
    return infer_signature(few, np.zeros(len(few)))


def join_for_spark(home: Path, out: Path) -> None:
    """Write the joined rows that Spark reads."""
    import polars as pl

    rows = pl.scan_delta(str(home / "lake/raw/orders")).sort("at")
    for key in LOOKED_UP:
        known = pl.scan_delta(str(home / f"lake/features/of_{key}")).sort("event_time")
        known = known.rename({f"f{number}": f"of_{key}__f{number}" for number in range(FEATURES)})
        rows = rows.join_asof(known, left_on="at", right_on="event_time", by=key, tolerance="30d").drop("event_time")
    codes = pl.col("channel").replace_strict(list(CHANNELS), range(len(CHANNELS)), return_dtype=pl.Float64)
    frame = rows.with_columns(codes).select("id", "at", *feature_names()).collect()
    frame.write_parquet(out.with_name("joined.parquet"), row_group_size=100_000)


def on_ray(home: Path, out: Path) -> None:
    """Print the processor seconds of the busiest worker and of this process, the start of Ray and workers excluded."""
    with executor_session("ray"):
        few = Wanted(
            model=MODEL, source="SELECT * FROM raw.orders USING SAMPLE reservoir(1200000 ROWS) REPEATABLE (1)",
            target=str(out.with_name("warm.parquet")), executor="ray",
        )  # fmt: skip
        score(Settings(home=home), few, lambda: views(home / "views"))  # so that workers are there, and have imported
        before, own = _workers(), time.process_time()
        _score(home, str(out), "ray")
        after = _workers()
        used = sorted((after[pid] - before.get(pid, 0.0) for pid in after), reverse=True)
        print(json.dumps({"workers": used[:4], "own": time.process_time() - own}))


def _workers() -> dict[int, float]:
    """Processor seconds of Ray's workers so far."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::") or "default_worker.py" in " ".join(process.cmdline()):
            found[process.pid] = sum(process.cpu_times()[:2])
    return found


def measure(what: str, home: Path, out: Path, python: str = sys.executable) -> dict[str, float]:
    """Run one way in a process of its own, and tell what it took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [python, __file__, "--run", what, "--home", str(home), "--out", str(out)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = json.loads(ended.stdout.strip().splitlines()[-1])
    print(what, cpu, told, flush=True)
    return {"cpu": cpu, "seconds": time.perf_counter() - began, **told}


def run_one(what: str, home: Path, out: Path) -> None:
    """Run one way in this process, and print its peak of memory."""
    ways = {
        "ours": ours, "pandas": pandas_predict, "polars": polars_predict, "ray": on_ray, "spark": spark,
        "join": join_for_spark,
    }  # fmt: skip
    if what != "nothing":
        ways[what](home, out)
    if what != "ray":
        print(json.dumps({"mb": _peak_mb()}))


def _peak_mb() -> float:
    """Peak of this program's memory; `ru_maxrss` would include that of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--large", type=int, default=20_000_000)
    parser.add_argument("--spark", help="Python with pyspark and our libraries")
    parser.add_argument("--without", nargs="*", default=[], choices=["ray", "large", "usual"])
    parser.add_argument("--run")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    if chosen.run:
        run_one(chosen.run, chosen.home, chosen.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        if "usual" not in chosen.without:
            _write("Scoring in batch", usual(Path(folder) / "usual", chosen.rows, chosen.spark))
        if "large" not in chosen.without:
            _write("Scoring in batch: memory", large(Path(folder) / "light", chosen.rows, chosen.large))
        if "ray" not in chosen.without:
            _write("Scoring in batch on Ray", ray_ratio(Path(folder) / "heavy", chosen.rows))


def _write(title: str, lines: list[str]) -> None:
    load = os.getloadavg()[2]
    told = f"The machine was shared: load average over the last 15 minutes {load:.1f} on {os.cpu_count()} cores."
    packages = ("polars", "pandas", "lightgbm", "onnxruntime", "deltalake", "ray")
    write_section(title, "python benchmarks/batch.py", [*lines, told], packages=packages)


def usual(folder: Path, rows: int, python: str | None) -> list[str]:
    """Beside plain `predict`, and beside Spark."""
    home = folder / "home"
    build(home, rows, TREES["usual"])
    taken = {what: measure(what, home, folder / f"{what}.parquet") for what in ("ours", "polars", "pandas")}
    lines = [
        f"{rows:,} rows, {len(LOOKED_UP)} look-ups, {len(feature_names())} features ({NUMBERS} numbers of the row), "
        f"{TREES['usual']} trees; processor seconds with start and imports, ratios to plain predict with pandas.",
        "",
        "| | CPU s | µs a row | ratio | peak memory MB |",
        "|---|---|---|---|---|",
    ]
    names = {
        "ours": "`ml-platform score`",
        "polars": "Polars `join_asof`, LightGBM `predict`",
        "pandas": "pandas `merge_asof`, LightGBM `predict`",
    }
    for what, one in taken.items():
        lines.append(
            f"| {names[what]} | {one['cpu']:.1f} | {1e6 * one['cpu'] / rows:.1f} | "
            f"{one['cpu'] / taken['pandas']['cpu']:.2f} | {one['mb']:,.0f} |"
        )
    if python is not None:
        measure("join", home, folder / "spark")
        one = measure("spark", home, folder / "spark", python)
        lines.append(
            f"| `mlflow.pyfunc.spark_udf`, `local[2]`, rows joined before | {one['cpu']:.1f} | "
            f"{1e6 * one['cpu'] / rows:.1f} | {one['cpu'] / taken['pandas']['cpu']:.2f} | |"
        )
    return [*lines, ""]


def large(folder: Path, rows: int, many: int) -> list[str]:
    """Memory as the rows grow, in process."""
    lines = [
        f"Memory in process as the rows grow, with {TREES['light']} trees:",
        "",
        "| rows | CPU s | µs a row | peak memory MB |",
        "|---|---|---|---|",
    ]
    for number in (rows, many):
        home = folder / str(number) / "home"
        build(home, number, TREES["light"])
        one = measure("ours", home, home.parent / "out.parquet")
        lines.append(f"| {number:,} | {one['cpu']:.1f} | {1e6 * one['cpu'] / number:.2f} | {one['mb']:,.0f} |")
    return [*lines, ""]


def ray_ratio(folder: Path, rows: int) -> list[str]:
    """One process beside two workers, by the processor time that bounds each."""
    home = folder / "home"
    build(home, rows, TREES["heavy"])
    nothing = measure("nothing", home, folder / "none")
    alone = measure("ours", home, folder / "alone.parquet")["cpu"] - nothing["cpu"]
    told = measure("ray", home, folder / "ray.parquet")
    busiest, own = told["workers"][0], told["own"]  # type: ignore[index]
    return [
        f"On Ray, over files, start excluded, a model of {1e6 * alone / rows:.1f} µs a row ({TREES['heavy']} trees), "
        f"{rows:,} rows: one process takes {alone:.1f} CPU s; of two workers the busier takes {busiest:.1f}, the "
        f"driver {own:.1f}: {alone / busiest:.2f} times as fast by the processor time that bounds it.",
        "",
    ]


if __name__ == "__main__":
    main()
