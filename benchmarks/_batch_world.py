"""Orders with three look-ups, and a LightGBM over 41 features: as a release of the platform, and as its own file."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import polars as pl
from _batch_names import CHANNELS, FEATURES, JOINED, LOOKED_UP, MODEL, NUMBERS, feature_names

sys.path.insert(0, str(Path(__file__).parents[1]))

from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Feature, Golden, Input, Manifest, Target, ViewLookup
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.training.export.onnx_trees import export_trees
from ml_platform.training.families.lightgbm import trees_of
from ml_platform_tests.serving import releases

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 60
_FRAME_ROWS = 500_000


def views(folder: Path) -> dict[str, FeatureView]:
    """Write and read the three views."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in LOOKED_UP:
        columns = "\n".join(f"  f{number}: {{type: number, description: x}}" for number in range(FEATURES))
        names = ", ".join(f"f{number}" for number in range(FEATURES))
        (folder / f"of_{key}.sql").write_text(
            f"/*\ndescription: x\nowner: x@example.com\nentity: [{key}]\nttl: 30 days\ncolumns:\n{columns}\n*/\n"
            f"SELECT {key}, event_time, {names} FROM raw.of_{key}"
        )
    return load_views(folder)


def build(home: Path, rows: int, trees: int, leaves: int = 31) -> None:
    """Make lake, views and release; `model.txt` is LightGBM's own file."""
    settings = Settings(home=home)
    lake, random = Lake(settings.lake_uri), np.random.default_rng(0)
    for key, number in LOOKED_UP.items():
        lake.replace(f"raw/of_{key}", _history(key, number, random))
    known = views(home / "views")
    for view in known.values():
        compute_view(lake, view)
    lake.replace_in_batches("raw/orders", lambda: orders(rows))
    booster = _train(trees, leaves)
    booster.save_model(home / "model.txt")
    publish(settings, booster, known)
    publish_joined(settings, booster)


def orders(rows: int) -> Iterator[pl.DataFrame]:
    """Yield orders, the same for every call."""
    for first in range(0, rows, _FRAME_ROWS):
        random, count = np.random.default_rng(first + 1), min(_FRAME_ROWS, rows - first)
        seconds = pl.Series(random.integers(31 * 86400, DAYS * 86400, count))
        keys = {
            key: pl.format(f"{key}-{{}}", pl.Series(random.integers(0, number, count)))
            for key, number in LOOKED_UP.items()
        }
        yield pl.DataFrame({"at": seconds}).select(
            id=pl.format("order-{}", pl.int_range(first, first + count)),
            **keys,
            channel=pl.Series(np.array(CHANNELS)[random.integers(0, len(CHANNELS), count)]),
            at=(pl.lit(START) + pl.duration(seconds="at")).cast(pl.Datetime("us", "UTC")),
            **{f"n{number}": pl.Series(random.normal(size=count)) for number in range(NUMBERS)},
        )


def _history(key: str, number: int, random: np.random.Generator) -> pl.DataFrame:
    """Rows of a view's source: each entity changes each third day or so."""
    rows = number * 20
    return pl.DataFrame(
        {"micros": random.integers(0, DAYS * 86400, rows) * 1_000_000 + np.arange(rows) % 1_000_000}
    ).select(
        pl.format(f"{key}-{{}}", pl.Series(random.integers(0, number, rows))).alias(key),
        event_time=(pl.lit(START) + pl.duration(microseconds="micros")).cast(pl.Datetime("us", "UTC")),
        **{f"f{place}": pl.Series(random.normal(size=rows)) for place in range(FEATURES)},
    )


def _train(trees: int, leaves: int) -> lightgbm.Booster:
    random = np.random.default_rng(2)
    X = random.normal(size=(20_000, len(feature_names())))
    X[:, 0] = random.integers(0, len(CHANNELS), len(X))
    X[random.random(X.shape) < 0.02] = np.nan
    y = (np.nan_to_num(X[:, 1]) + np.nan_to_num(X[:, 30] * X[:, 9]) + random.normal(size=len(X))) > 0
    classifier = lightgbm.LGBMClassifier(n_estimators=trees, num_leaves=leaves, verbosity=-1, random_state=0, n_jobs=1)
    booster: lightgbm.Booster = classifier.fit(X, y).booster_
    return booster


def publish(settings: Settings, booster: lightgbm.Booster, known: dict[str, FeatureView]) -> None:
    """Release the booster as the model `orders`."""
    names = feature_names()
    graph = export_trees(trees_of(booster, "binary"), "binary", len(names))
    features = [
        Feature(
            name=name,
            kind="categorical" if name == "channel" else "numeric",
            source="input" if "__" not in name else f"view:{name.partition('__')[0]}",
            categories=CHANNELS if name == "channel" else None,
        )
        for name in names
    ]
    inputs = [Input(name="id", type="string"), *(Input(name=key, type="string") for key in LOOKED_UP)]
    inputs += [Input(name="channel", type="string", allowed=CHANNELS), Input(name="at", type="timestamp")]
    inputs += [Input(name=f"n{number}", type="number", minimum=-100.0, maximum=100.0) for number in range(NUMBERS)]
    lookups = tuple(
        ViewLookup(
            view=f"of_{key}",
            view_hash=known[f"of_{key}"].hash,
            keys={key: key},
            features=tuple(f"of_{key}__f{number}" for number in range(FEATURES)),
            ttl_seconds=timedelta(days=30).total_seconds(),
        )
        for key in LOOKED_UP
    )
    manifest = msgspec.structs.replace(
        msgspec.json.decode(releases.bundle(1)["manifest.json"], type=Manifest),
        model=MODEL, id="id", as_of="at", inputs=tuple(inputs), derived=(), lookups=lookups, features=tuple(features),
    )  # fmt: skip
    row = next(orders(1)).row(0, named=True)
    inputs_of_row = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
    _release(settings, graph, manifest, inputs_of_row, {name: 0.5 for name in names if "__" in name}, row)


def publish_joined(settings: Settings, booster: lightgbm.Booster) -> None:
    """Release the same booster as the model `orders_joined`, whose 41 features all come with the row."""
    names = feature_names()
    manifest = msgspec.structs.replace(
        msgspec.json.decode(releases.bundle(1)["manifest.json"], type=Manifest),
        model=JOINED, id="id", as_of=None, derived=(), lookups=(),
        inputs=(Input(name="id", type="string"), *(Input(name=name, type="number", required=False) for name in names)),
        features=tuple(Feature(name=name, kind="numeric", source="input") for name in names),
    )  # fmt: skip
    graph = export_trees(trees_of(booster, "binary"), "binary", len(names))
    row = {"id": "order-0", **dict.fromkeys(names, 0.5)}
    _release(settings, graph, manifest, row, {}, row)


def _release(  # noqa: PLR0917
    settings: Settings, graph: bytes, manifest: Manifest, inputs: dict, looked_up: dict, row: dict
) -> None:
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(graph, manifest))
    scorer = Scorer(manifest, graph)
    values = {**row, **looked_up}
    golden = Golden(
        inputs=(inputs,),
        looked_up=(looked_up,),
        matrix=(tuple(scorer.matrix_row(values)),),
        scores=(scorer.score_row(values),),
    )
    store = ReleaseStore(settings.releases_dir)
    files = {"manifest.json": msgspec.json.encode(manifest), "model.onnx": graph}
    digest = store.put_bundle({**files, "golden.json": msgspec.json.encode(golden)})
    store.publish(manifest.model, [Target(version=1, digest=digest)], reason="benchmark", by="benchmark")
