"""Feast's precomputed vectors as a contender of `feature_service.py`; runs in Feast's environment.

python benchmarks/_feast_service.py setup <folder> <sqlite | host:port> <views as JSON: name → feature → type>
python benchmarks/_feast_service.py read <folder> <address> <views> <service>
python benchmarks/_feast_service.py http <folder> <address> <views> <port>
"""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast.types
import pandas as pd
from _contender import Answers, serve
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.protos.feast.core.PrecomputedFeatureVector_pb2 import FeatureViewTimestamp, PrecomputedFeatureVector
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp


def opened(folder: Path, address: str) -> FeatureStore:
    """A repository in a folder; its registry is read once."""
    sqlite = {"type": "sqlite", "path": str(folder / "feast.db")}
    config = RepoConfig(
        project="benchmark",
        provider="local",
        registry={"path": str(folder / "registry.db"), "cache_ttl_seconds": 0},  # 0: never read again
        online_store=sqlite if address == "sqlite" else {"type": "redis", "connection_string": f"{address},db=1"},
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def set_up(store: FeatureStore, folder: Path, views: dict[str, dict[str, str]]) -> None:
    """Apply one view, three views and a precomputed service of each; write the rows and the vectors."""
    entity = Entity(name="key", join_keys=["key"], value_type=feast.ValueType.STRING)
    source = FileSource(path=str(folder / "view_0.parquet"), timestamp_field="event_time")
    made = [
        FeatureView(
            name=name,
            entities=[entity],
            ttl=timedelta(days=7),
            schema=[Field(name=key, dtype=getattr(feast.types, kind)) for key, kind in features.items()],
            source=source,
        )
        for name, features in views.items()
    ]
    services = [
        FeatureService(name=f"service_{count}", features=made[:count], precompute_online=True)
        for count in (1, len(made))
    ]
    store.apply([entity, *made, *services])
    for name in views:
        store.write_to_online_store(name, pd.read_parquet(folder / f"{name}.parquet"))
    for service in services:
        if store.config.online_store.type == "redis":
            store.precompute_feature_service(service.name)
        else:  # Feast cannot list the keys of other stores: the same vectors, by the same call as its own
            write_vectors(store, service, [view for view in made if view.name in {p.name for p in
                          service.feature_view_projections}], folder)  # fmt: skip


def write_vectors(store: FeatureStore, service: FeatureService, views: Sequence[FeatureView], folder: Path) -> None:
    """Do what `FeatureStore.precompute_feature_service` does, for keys of a file, in one write."""
    online = store._get_provider().online_store
    keys = [
        EntityKey(join_keys=["key"], entity_values=[Value(string_val=key)])
        for key in pd.read_parquet(folder / f"{views[0].name}.parquet")["key"]
    ]
    names = [f"{view.name}__{field.name}" for view in views for field in view.features]
    columns = [online.online_read(store.config, view, keys, [field.name for field in view.features]) for view in views]
    data, now = [], Timestamp()
    now.FromDatetime(datetime.now(UTC))
    for key, rows in zip(keys, zip(*columns, strict=True), strict=True):
        times, values = [], []
        for view, (at, found) in zip(views, rows, strict=True):
            stamp = Timestamp()
            stamp.FromDatetime(at)
            times.append(FeatureViewTimestamp(feature_view_name=view.name, event_timestamp=stamp))
            values += [found[field.name] for field in view.features]
        vector = PrecomputedFeatureVector(feature_names=names, values=values, fv_timestamps=times, precomputed_at=now)
        data.append((key, {"vector": Value(bytes_val=vector.SerializeToString())}, datetime.now(UTC), None))
    synthetic = FeatureView(
        name=f"__precomputed__{service.name}",
        entities=[],
        schema=[Field(name="vector", dtype=feast.types.Bytes)],
        source=None,
    )
    online._config = store.config
    online.update(store.config, [], [synthetic], [], [], partial=True)
    online.online_write_batch(store.config, synthetic, data, progress=None)


class PrecomputedService:
    """One service, asked as its users ask it."""

    def __init__(self, store: FeatureStore, service: str) -> None:
        self._store = store
        self._service = store.get_feature_service(service)

    def write(self, view: str, path: str) -> None:
        """See `Store.write`; rows are written by `set_up`."""

    def read(self, keys: Sequence[str]) -> Answers:
        """See `Store.read`."""
        rows = [{"key": key} for key in keys]
        found = self._store.get_online_features(self._service, rows, full_feature_names=True)
        columns: dict[str, list[Any]] = found.to_dict()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


if __name__ == "__main__":
    task, place, where, declared, *options = sys.argv[1:]
    repository = opened(Path(place), where)
    if task == "setup":
        set_up(repository, Path(place), json.loads(declared))
    elif task == "http":
        repository.serve("127.0.0.1", int(options[0]), no_access_log=True, workers=1, max_requests=0)
    else:
        serve(PrecomputedService(repository, options[0]))
