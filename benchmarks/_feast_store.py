"""Feast's online store as a contender of `online.py`; runs in Feast's environment.

python benchmarks/_feast_store.py <folder> <sqlite | host:port> <views as JSON: name → feature → type>
"""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import feast.types
import pandas as pd
from _contender import Answers, serve
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig


class FeastStore:
    """A repository with one entity and its views, nothing else; timestamps are kept from going back, as by default."""

    def __init__(self, folder: Path, address: str, views: dict[str, dict[str, str]]) -> None:
        sqlite = {"type": "sqlite", "path": str(folder / "feast.db")}
        config = RepoConfig(
            project="benchmark",
            provider="local",
            registry={"path": str(folder / "registry.db"), "cache_ttl_seconds": 0},  # 0: never read again
            online_store=sqlite if address == "sqlite" else {"type": "redis", "connection_string": f"{address},db=1"},
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
        )
        self._store = FeatureStore(config=config)
        entity = Entity(name="key", join_keys=["key"], value_type=feast.ValueType.STRING)
        source = FileSource(path=str(folder / "view_0.parquet"), timestamp_field="event_time")
        self._store.apply(
            [
                entity,
                *(
                    FeatureView(
                        name=name,
                        entities=[entity],
                        ttl=timedelta(days=7),
                        schema=[Field(name=key, dtype=getattr(feast.types, kind)) for key, kind in features.items()],
                        source=source,
                    )
                    for name, features in views.items()
                ),
            ]
        )
        self._features = [f"{name}:{key}" for name, features in views.items() for key in features]

    def write(self, view: str, path: str) -> None:
        """See `Store.write`."""
        self._store.write_to_online_store(view, pd.read_parquet(path))

    def read(self, keys: Sequence[str]) -> Answers:
        """See `Store.read`."""
        rows = [{"key": key} for key in keys]
        found = self._store.get_online_features(self._features, rows, full_feature_names=True)
        columns: dict[str, list[Any]] = found.to_dict()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


if __name__ == "__main__":
    serve(FeastStore(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])))
