"""The ways of scoring the orders that `batch.py` compares, each in a process of its own with no more than it imports.

    python benchmarks/_batch_ways.py <way> <home> <output>

It says READY when it has imported what it needs, and DONE when the scores are written.
"""

import json
import os
import sys
import time
from pathlib import Path

from _batch_names import CHANNELS, FEATURES, JOINED, LOOKED_UP, MODEL, feature_names


def ready() -> None:
    """What comes from here on is not the start."""
    print("READY", flush=True)


def ours(home: Path, out: Path) -> None:
    """`ml-platform score`, in process."""
    score = _ours()
    ready()
    report = score(home, str(out))
    assert report.refused == 0


def table(home: Path, out: Path) -> None:
    """The same into a table of the lake, whose rows are not written twice."""
    del out
    score = _ours()
    ready()
    assert score(home, "scores/orders").refused == 0


def joined(home: Path, out: Path) -> None:
    """`ml-platform score` over rows that are joined already, as Spark gets them."""
    score = _ours()
    ready()
    assert score(home, str(out), source=str(out.with_name("join.parquet")), model=JOINED).refused == 0


def _ours():
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ml_platform.features.views.load import load_views
    from ml_platform.scoring.run import Wanted, score
    from ml_platform.settings import Settings

    def run(home: Path, target: str, executor: str = "local", source: str = "raw/orders", model: str = MODEL):
        wanted = Wanted(model=model, source=source, target=target, executor=executor)
        return score(Settings(home=home), wanted, lambda: load_views(home / "views"))

    return run


def pandas(home: Path, out: Path) -> None:
    """What a person writes: `merge_asof` for each view, then `predict` over the frame, on one thread."""
    import lightgbm
    import pandas as pd
    from deltalake import DeltaTable

    ready()
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


def polars(home: Path, out: Path) -> None:
    """The same with Polars: `join_asof`, then `predict` over the matrix, on one thread."""
    import lightgbm
    import numpy as np
    import polars as pl

    ready()
    frame = _joined(home).collect()
    booster = lightgbm.Booster(model_file=home / "model.txt")
    scores = booster.predict(frame.select(feature_names()).to_numpy(), num_threads=1)
    frame.select("id", "at", pl.Series("score", np.asarray(scores))).write_parquet(out)


def _joined(home: Path):
    import polars as pl

    rows = pl.scan_delta(str(home / "lake/raw/orders")).sort("at")
    for key in LOOKED_UP:
        known = pl.scan_delta(str(home / f"lake/features/of_{key}")).sort("event_time")
        known = known.rename({f"f{number}": f"of_{key}__f{number}" for number in range(FEATURES)})
        rows = rows.join_asof(known, left_on="at", right_on="event_time", by=key, tolerance="30d").drop("event_time")
    codes = pl.col("channel").replace_strict(list(CHANNELS), range(len(CHANNELS)), return_dtype=pl.Float64)
    return rows.with_columns(codes)


def join(home: Path, out: Path) -> None:
    """Write the joined rows that Spark reads: it has no as-of join."""
    ready()
    frame = _joined(home).select("id", "at", *feature_names()).collect()
    frame.write_parquet(out, row_group_size=100_000)


def spark(home: Path, out: Path) -> None:
    """`mlflow.pyfunc.spark_udf` on `local[2]`, over rows that are joined already; its workers are started before."""
    import lightgbm
    import mlflow
    import polars as pl
    from mlflow.models import infer_signature
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    session = (
        SparkSession.builder.master("local[2]").config("spark.driver.memory", "4g").config("spark.ui.enabled", "false")
    ).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    rows, model = str(out.with_name("join.parquet")), str(out.with_name(f"{out.name}-model"))
    few = pl.scan_parquet(rows).select(feature_names()).head(100).collect().to_pandas()
    booster = lightgbm.Booster(model_file=home / "model.txt")
    signature = infer_signature(few, booster.predict(few))
    mlflow.lightgbm.save_model(booster, model, pip_requirements=[], signature=signature)
    predict = mlflow.pyfunc.spark_udf(session, model, result_type="double", env_manager="local")

    def write(some, name: Path) -> None:
        some.withColumn("score", predict(*feature_names())).select("id", "at", "score").write.parquet(str(name))

    frame = session.read.parquet(rows)
    write(frame.limit(20_000).repartition(2), out.with_name(f"{out.name}-warm"))
    ready()
    write(frame, out)


def ray(home: Path, out: Path) -> None:
    """Print the processor seconds of each of Ray's workers and of this process, once workers have scored something."""
    score = _ours()
    from ml_platform.compute import executor_session

    with executor_session("ray"):
        some = "SELECT * FROM raw.orders USING SAMPLE reservoir(1200000 ROWS) REPEATABLE (1)"
        score(home, str(out.with_name("warm.parquet")), "ray", some)
        ready()
        before, own, began = _workers(), time.process_time(), time.perf_counter()
        score(home, str(out), "ray")
        after = _workers()
        used = sorted((after[pid] - before.get(pid, 0.0) for pid in after), reverse=True)
        told = {"workers": used[:4], "own": time.process_time() - own, "wall": time.perf_counter() - began}
        print(json.dumps(told), flush=True)


def _workers() -> dict[int, float]:
    """Processor seconds of Ray's workers so far."""
    import psutil

    found = {}
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::") or "default_worker.py" in " ".join(process.cmdline()):
            found[process.pid] = sum(process.cpu_times()[:2])
    return found


if __name__ == "__main__":
    ways = {
        "ours": ours, "table": table, "joined": joined, "pandas": pandas, "polars": polars, "join": join,
        "spark": spark, "ray": ray,
    }  # fmt: skip
    ways[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    print("DONE", flush=True)
    sys.stdin.read()  # who measures wants to look at this process before it ends
