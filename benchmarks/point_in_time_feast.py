"""Feast's own offline store (DuckDB) on the files of `point_in_time.py`, in an environment that has Feast.

Run by `point_in_time.py` as `python point_in_time_feast.py <folder> <views> <features> <days of TTL>`: it writes the
rows to `<folder>/feast.parquet` and prints seconds, CPU seconds and peak memory (GiB) as JSON.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.offline_stores.duckdb import DuckDBOfflineStoreConfig
from feast.types import Float64


def main() -> None:
    """Join every feature of every view to the labels."""
    folder, (views, features, days) = Path(sys.argv[1]), map(int, sys.argv[2:])
    key = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
    tables = [
        FeatureView(
            name=f"v{view}",
            entities=[key],
            ttl=timedelta(days=days),
            schema=[Field(name=f"f{n}", dtype=Float64) for n in range(features)],
            source=FileSource(
                path=str(folder / f"view_{view}.parquet"),
                timestamp_field="event_time",
                created_timestamp_column="created",
            ),
        )
        for view in range(views)
    ]
    labels = pd.read_parquet(folder / "labels.parquet")
    with TemporaryDirectory() as repository:
        config = RepoConfig(
            project="benchmark",
            provider="local",
            registry=f"{repository}/registry.db",
            offline_store=DuckDBOfflineStoreConfig(),
            online_store=None,
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        store.apply([key, *tables])
        begin, begin_cpu = time.perf_counter(), time.process_time()
        job = store.get_historical_features(
            labels, [f"v{view}:f{n}" for view in range(views) for n in range(features)], full_feature_names=True
        )
        rows = job.to_arrow()
        seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    [peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    rows.to_pandas().to_parquet(folder / "feast.parquet")
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak / 2**20}))


if __name__ == "__main__":
    main()
