"""Real releases for the tests: a small model of flight delays whose scores tell which version gave them."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl

from ml_platform.atomic_files import replace_file
from ml_platform.features.expressions.compile import compile_tree, evaluator
from ml_platform.features.online.open import open_online_store
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import (
    MISSING_CODE,
    UNSEEN_CODE,
    Derived,
    Feature,
    Golden,
    Input,
    Manifest,
    Provenance,
    Target,
    ViewLookup,
)
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings

MODEL = "flight_delay"
CARRIERS = ("AA", "B6", "UA")
HASHES = {"origin_weather": "a" * 64, "carrier_reliability": "b" * 64, "aircraft_rotation": "c" * 64}
KNOWN_AT = datetime(2013, 7, 1, 10, tzinfo=UTC)
ROW: dict[str, Any] = {
    "flight_id": "2013-07-01:UA1545:EWR:0800",
    "carrier": "UA",
    "origin": "EWR",
    "dest": "IAH",
    "tailnum": "N14228",
    "scheduled_departure": "2013-07-01T12:00:00Z",
    "scheduled_arrival": "2013-07-01T15:30:00Z",
    "distance": 1400,
}
INPUTS = (
    Input(name="flight_id", type="string", required=False, example=ROW["flight_id"], description="Names the flight."),
    Input(name="carrier", type="string", example="UA", description="Airline's code."),
    Input(name="origin", type="string", example="EWR"),
    Input(name="dest", type="string", example="IAH"),
    Input(name="tailnum", type="string", required=False, example="N14228", description="The aircraft."),
    Input(name="scheduled_departure", type="timestamp", example=ROW["scheduled_departure"]),
    Input(name="scheduled_arrival", type="timestamp", example=ROW["scheduled_arrival"]),
    Input(name="distance", type="number", unit="mile", minimum=0.0, maximum=6000.0, example=1400, description="Flown."),
)
_departure = pl.col("scheduled_departure")
_local = _departure.dt.convert_time_zone("America/New_York")
_EXPRESSIONS = {
    "prediction_time": ("timestamp", _departure - timedelta(hours=1)),
    "minute_of_day": ("integer", _local.dt.hour().cast(pl.Int64) * 60 + _local.dt.minute().cast(pl.Int64)),
    "weekday": ("integer", _local.dt.weekday().cast(pl.Int64)),
    "scheduled_minutes": ("integer", (pl.col("scheduled_arrival") - _departure).dt.total_minutes()),
}
VIEWS: dict[str, tuple[dict[str, str], tuple[str, ...], timedelta]] = {
    "origin_weather": (
        {"origin": "origin"},
        ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"),
        timedelta(hours=6),
    ),
    "carrier_reliability": (
        {"carrier": "carrier"},
        ("late_share_3h", "late_share_30d", "mean_delay_3h", "mean_delay_30d", "flights_30d"),
        timedelta(days=30),
    ),
    "aircraft_rotation": (
        {"tailnum": "tailnum"},
        ("last_arr_delay", "last_distance", "minutes_since_arrival", "legs_today"),
        timedelta(days=2),
    ),
}
NUMERIC = ("distance", "minute_of_day", "weekday", "scheduled_minutes")


def features() -> tuple[Feature, ...]:
    """Columns of the matrix: a categorical, numbers of the request, derived numbers, numbers of three views."""
    found = [Feature(name="carrier", kind="categorical", source="input", categories=CARRIERS, importance=0.5)]
    found += [
        Feature(name=name, kind="numeric", source="input" if name == "distance" else "derived") for name in NUMERIC
    ]
    for view, (_, columns, _) in VIEWS.items():
        found += [Feature(name=f"{view}__{column}", kind="numeric", source=f"view:{view}") for column in columns]
    return tuple(found)


def score(version: int, row: Mapping[str, Any]) -> float:
    """The answer that `version` must give to a row with a known carrier and all look-ups found."""
    matrix = np.array([_matrix_row({**row, **_looked_up(str(row["carrier"]))})])
    return float(_scores(version, matrix)[0])


def publish(settings: Settings, *versions: int, shares: Sequence[float] = (), **changes: Any) -> None:
    """Release versions of the model, as promotion does."""
    store = ReleaseStore(settings.releases_dir)
    shares = shares or [1 / len(versions)] * len(versions)
    targets = [
        Target(version=version, digest=store.put_bundle(bundle(version, **changes)), share=share)
        for version, share in zip(versions, shares, strict=True)
    ]
    store.publish(MODEL, targets, reason="for a test", by="pytest")


def announce(settings: Settings, digest: str, revision: int = 2) -> None:
    """Write an endpoint document past all the checks that publishing makes."""
    path = ReleaseStore(settings.releases_dir).endpoint_path(MODEL)
    document = json.loads(path.read_bytes())
    document["revision"] = revision
    document["targets"] = [{**document["targets"][0], "version": revision, "digest": digest}]
    replace_file(path, json.dumps(document).encode())  # a server that saw half of it would refuse that as well


def fill_online_store(settings: Settings, *, hashes: Mapping[str, str] = HASHES, known_at: datetime = KNOWN_AT) -> None:
    """Write the newest values of a few entities of each view."""
    keys = {"origin_weather": ["EWR", "JFK"], "carrier_reliability": list(CARRIERS), "aircraft_rotation": ["N14228"]}
    with open_online_store(settings.online_uri) as store:
        for view, (entity, columns, _) in VIEWS.items():
            [name] = entity
            rows = [{name: key, "event_time": known_at, **_values(view, columns, key)} for key in keys[view]]
            store.write(view, (name,), pl.DataFrame(rows), view_hash=hashes[view])


def bundle(version: int, *, graph: bytes | None = None, **changes: Any) -> dict[str, bytes]:
    """Files of a release bundle; `changes` replace fields of its manifest."""
    onnx = graph or linear_graph(version)
    derived = tuple(
        Derived(name=name, type=kind, tree=compile_tree(expression))  # type: ignore[arg-type]
        for name, (kind, expression) in _EXPRESSIONS.items()
    )
    manifest = Manifest(
        model=MODEL,
        model_digest="",
        task="binary",
        description="Will the flight arrive 15 or more minutes late?",
        owner="team:flights",
        family="linear",
        id="flight_id",
        as_of="prediction_time",
        inputs=INPUTS,
        derived=derived,
        lookups=tuple(
            ViewLookup(
                view=view,
                view_hash=HASHES[view],
                keys=entity,
                features=tuple(f"{view}__{column}" for column in columns),
                ttl_seconds=ttl.total_seconds(),
            )
            for view, (entity, columns, ttl) in VIEWS.items()
        ),
        features=features(),
        threshold=0.5,
        target="late",
        metrics={"roc_auc": 0.75},
        provenance=Provenance(
            tables={"raw/flights": 3},
            training_set="training_sets/flight_delay",
            training_set_version=1,
            trained_from="2013-01-01T00:00:00Z",
            trained_until="2013-06-01T00:00:00Z",
            training_rows=100_000,
            code_version="test",
        ),
        created_at="2013-06-02T00:00:00Z",
        tags={},
    )
    manifest = msgspec.structs.replace(manifest, **changes)
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(onnx, manifest))
    golden = _golden(version, onnx)
    return {
        "manifest.json": msgspec.json.encode(manifest),
        "model.onnx": onnx,
        "golden.json": msgspec.json.encode(golden),
    }


def linear_graph(version: int) -> bytes:
    """Graph of `sigmoid(weights · X + bias)` in double, a null counting as 0; the bias is the version's."""
    return _graph("Sigmoid", _weights(), [_bias(version)])


def softmax_graph(classes: int) -> bytes:
    """Graph of a model of so many classes, whose probabilities differ, and differ by row."""
    weights = np.outer(_weights(), np.arange(1, classes + 1))
    return _graph("Softmax", weights, [0.1 * number for number in range(classes)])


def _graph(activation: str, weights: np.ndarray, bias: Sequence[float]) -> bytes:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("IsNaN", ["X"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "X"], ["known"]),
        helper.make_node("MatMul", ["known", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node(activation, ["sum"], ["score"]),
    ]
    shape = ["rows", *weights.shape[1:]]
    graph = helper.make_graph(
        nodes,
        "score",
        [helper.make_tensor_value_info("X", TensorProto.DOUBLE, ["rows", len(weights)])],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, shape)],
        [
            helper.make_tensor("zero", TensorProto.DOUBLE, [1], [0.0]),
            helper.make_tensor("weights", TensorProto.DOUBLE, weights.shape, weights.ravel().tolist()),
            helper.make_tensor("bias", TensorProto.DOUBLE, [len(bias)], bias),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _golden(version: int, onnx: bytes) -> Golden:
    import onnxruntime

    inputs = [ROW, {**ROW, "carrier": "ZZ", "tailnum": None}]
    looked_up = [_looked_up("UA"), {}]
    matrix = [_matrix_row({**row, **found}) for row, found in zip(inputs, looked_up, strict=True)]
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    scores = session.run(["score"], {"X": np.array(matrix)})[0]
    if onnx == linear_graph(version):
        assert np.allclose(scores, _scores(version, np.array(matrix)), rtol=0, atol=1e-12)
    plain = tuple(tuple(None if math.isnan(value) else value for value in row) for row in matrix)
    return Golden(inputs=tuple(inputs), looked_up=tuple(looked_up), matrix=plain, scores=tuple(scores.tolist()))


def _scores(version: int, matrix: np.ndarray) -> np.ndarray:
    total = np.nan_to_num(matrix, nan=0.0) @ _weights() + _bias(version)
    result: np.ndarray = 1 / (1 + np.exp(-total))
    return result


def _bias(version: int) -> float:
    return -2.0 + 0.01 * version


def _weights() -> np.ndarray:
    return np.array([0.001 * (1 + number % 5) / (1 + number) for number in range(len(features()))])


def _values(view: str, columns: Sequence[str], key: str) -> dict[str, float]:
    return {column: float(len(view) + number + len(key)) for number, column in enumerate(columns)}


def _looked_up(carrier: str) -> dict[str, float]:
    keys = {"origin_weather": "EWR", "carrier_reliability": carrier, "aircraft_rotation": "N14228"}
    return {
        f"{view}__{column}": value
        for view, (_, columns, _) in VIEWS.items()
        for column, value in _values(view, columns, keys[view]).items()
    }


def _matrix_row(row: Mapping[str, Any]) -> list[float]:
    values: dict[str, Any] = dict(row)
    for name in ("scheduled_departure", "scheduled_arrival"):
        values[name] = datetime.fromisoformat(values[name])
    for name, (_, expression) in _EXPRESSIONS.items():
        values[name] = evaluator(compile_tree(expression))(values)
    carrier = values["carrier"]
    code = MISSING_CODE if carrier is None else UNSEEN_CODE
    matrix = [float(CARRIERS.index(carrier)) if carrier in CARRIERS else code]
    for feature in features()[1:]:
        value = values.get(feature.name)
        matrix.append(math.nan if value is None else float(value))
    return matrix
