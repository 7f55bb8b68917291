"""A small released model over a real lake: 60 days of training rows, and days scored in batch and by serving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Golden, Input, Manifest, Provenance, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.registry import get_family

START = datetime(2013, 1, 1, tzinfo=UTC)
TRAINED_DAYS = 60
ROWS_PER_DAY = 100
MODEL = "turbine_fault"

SPEC = ModelSpec.model_validate(
    {
        "name": MODEL,
        "description": "Will a turbine stop today?",
        "owner": "team@example.com",
        "task": "binary",
        "target": "fault",
        "spine": "spine.sql",
        "id": "row_id",
        "timestamp": "at",
        "label_available_at": "label_at",
        "inputs": [
            {"name": "vibration", "type": "number"},
            {"name": "wind", "type": "number", "required": False},
            {"name": "maker", "type": "string"},
        ],
        "families": ["logistic_regression"],
        "scoring": {"start": "2013-01-01"},
        "monitoring": {"window": "7 days", "min_rows": 300, "min_drift_importance": 0.15},
    }
)
FEATURES = [
    FeatureInfo(name="vibration", kind="numeric", source="input"),
    FeatureInfo(name="wind", kind="numeric", source="input"),
    FeatureInfo(name="maker", kind="categorical", source="input"),
]
IMPORTANCE = {"vibration": 0.7, "wind": 0.2, "maker": 0.1}


def draw(first_day: int, days: int, *, seed: int = 0) -> pl.DataFrame:
    """Rows of some days: independent, `vibration` decides the fault, `wind` is sometimes missing."""
    rng = np.random.default_rng(10_000 * seed + first_day)
    rows = days * ROWS_PER_DAY
    vibration = rng.normal(size=rows)
    at = [START + timedelta(days=first_day + number / ROWS_PER_DAY) for number in range(rows)]
    return pl.DataFrame(
        {
            "row_id": [f"{first_day}-{number}" for number in range(rows)],
            "at": at,
            "label_at": [instant + timedelta(hours=6) for instant in at],
            "fault": rng.random(rows) < 1 / (1 + np.exp(-2 * vibration)),
            "vibration": vibration,
            "wind": pl.Series(rng.normal(8, 3, rows)).set(pl.Series(rng.random(rows) < 0.02), None),
            "maker": rng.choice(["ACME", "Borea", "Cirrus"], rows, p=[0.5, 0.3, 0.2]),
        },
        schema_overrides={"at": pl.Datetime("us", "UTC"), "label_at": pl.Datetime("us", "UTC")},
    )


@dataclass
class World:
    """The model's surroundings."""

    lake: Lake
    store: ReleaseStore
    settings: Settings
    folder: Path
    digest: str

    def score(
        self,
        rows: pl.DataFrame,
        *,
        version: int = 1,
        online: bool = False,
        scores: Sequence[float] | None = None,
        delay: timedelta = timedelta(),
        weight: float | None = None,
    ) -> None:
        """Record rows as scored, by the champion unless scores are given, each standing for `weight` rows."""
        encoder = FeatureEncoder(self.store.load_manifest(self.digest).features)
        answers = self.scorer_scores(encoder.transform(rows)) if scores is None else np.asarray(scores)
        table = rows.select(
            pl.col("row_id").alias("id" if online else SPEC.id),
            pl.col("at").alias("as_of"),
            (pl.col("at") + delay).alias("scored_at"),
            pl.lit(version, pl.Int64).alias("model_version"),
            pl.Series("score", answers),
            pl.Series("prediction", answers >= 0.5),
            pl.col("at").dt.date().alias("date"),
            "vibration",
            "wind",
            "maker",
        )
        if online:
            request = pl.int_range(pl.len()).cast(pl.String)
            table = table.with_columns(request_id=request, row=pl.lit(0, pl.Int64), caller=pl.lit("test"))
            if weight is not None:  # else as logs were before they could be sampled
                table = table.with_columns(sample_weight=pl.lit(weight))
        self.lake.append(f"{'inference_log' if online else 'predictions'}/{MODEL}", table)

    def scorer_scores(self, matrix: np.ndarray) -> np.ndarray:
        """Scores of the released bundle."""
        from ml_platform.inference.scorer import Scorer

        return Scorer.load(self.store.bundle_path(self.digest)).score(matrix)


@pytest.fixture(scope="session")
def bundle() -> tuple[dict[str, bytes], pl.DataFrame]:
    """A logistic regression trained on the first 60 days, exported; with its training rows."""
    frame = draw(0, TRAINED_DAYS)
    y = frame["fault"].cast(pl.Float64).to_numpy()
    encoder = FeatureEncoder.fit(frame, FEATURES, y)
    logistic, X = get_family("logistic_regression"), encoder.transform(frame)
    estimator = train_estimator(logistic, "binary", encoder.features, logistic.default_params("binary"), 0, X, y)
    onnx = logistic.export(estimator, "binary", encoder.features)
    features = tuple(msgspec.structs.replace(one, importance=IMPORTANCE[one.name]) for one in encoder.features)
    manifest = Manifest(
        model=MODEL,
        model_digest="",
        task="binary",
        description=SPEC.description,
        owner=SPEC.owner,
        family="logistic_regression",
        id=None,
        as_of=None,
        inputs=tuple(Input(name=field.name, type=field.type) for field in SPEC.inputs),
        derived=(),
        lookups=(),
        features=features,
        threshold=0.5,
        target=SPEC.target,
        metrics={"roc_auc": 0.85},
        provenance=Provenance(
            tables={},
            training_set=f"training_sets/{MODEL}",
            training_set_version=0,
            trained_from=START.isoformat(),
            trained_until=frame["at"].sort()[-1].isoformat(),
            training_rows=frame.height,
            code_version="test",
        ),
        created_at=START.isoformat(),
        tags={},
    )
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(onnx, manifest))
    matrix = encoder.transform(frame.head(1))
    golden = Golden(
        inputs=(frame.select("vibration", "wind", "maker").row(0, named=True),),
        looked_up=({},),
        matrix=(tuple(matrix[0].tolist()),),
        scores=tuple(logistic.predict(estimator, "binary", matrix).tolist()),
    )
    files = {
        "model.onnx": onnx,
        "manifest.json": msgspec.json.encode(manifest),
        "golden.json": msgspec.json.encode(golden),
    }
    return files, frame


@pytest.fixture
def world(lake: Lake, settings: Settings, tmp_path: Path, bundle: tuple[dict[str, bytes], pl.DataFrame]) -> World:
    """A lake with the training set, and version 1 released."""
    files, frame = bundle
    lake.replace(f"training_sets/{MODEL}", frame)
    # What the pinned version of the training set must keep apart: a newer one that looks like nothing before.
    lake.replace(f"training_sets/{MODEL}", frame.with_columns(pl.col("vibration") + 100))
    store = ReleaseStore(settings.releases_dir)
    digest = store.put_bundle(files)
    store.publish(MODEL, [Target(version=1, digest=digest)], reason="first", by="test")
    (tmp_path / "spine.sql").write_text("SELECT * FROM raw.turbines")
    return World(lake, store, settings, tmp_path, digest)


@pytest.fixture
def labels(world: World) -> Callable[[pl.DataFrame], None]:
    """Make the labels of rows known: the spine reads them."""

    def known(rows: pl.DataFrame) -> None:
        world.lake.replace("raw/turbines", rows)

    return known
