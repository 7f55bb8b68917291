"""A small world to learn from: orders of shops, of which some arrive late, in real Delta tables."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ml_platform.features.online.push_log import Pushed, stream
from ml_platform.features.online.pushed_rows import ingest_pushed
from ml_platform.features.training_sets.build import build_training_set
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.segment_log.segments import SegmentLog
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.split import TrainingRows, read_rows
from ml_platform.training.documents import Evaluation, SearchResult, TrainedModel
from ml_platform.training.evaluation.evaluate import evaluate
from ml_platform.training.evaluation.rescoring import VersionRows
from ml_platform.training.fit import fit_model
from ml_platform.training.refit import refit_model
from ml_platform.training.search import search

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 90

VIEW = """/*
description: How busy a shop was.
owner: shops@example.com
entity: [shop]
ttl: 3 days
columns:
  load: {type: number, description: Orders waiting.}
  mood: {type: string, description: What the manager says.}
*/
SELECT shop, seen_at AS event_time, load, mood FROM raw.loads
"""

REQUEST_FEATURES = """
import polars as pl

from ml_platform.features.expressions.request_features import RequestFeature

REQUEST_FEATURES = {
    "weekday": RequestFeature(pl.col("ordered_at").dt.weekday().cast(pl.Int64), "Weekday (UTC)."),
    "heavy": RequestFeature(pl.col("weight") > 20, "Needs two people."),
}
"""

SPINE = """
SELECT order_id, shop, channel, weight, ordered_at, known_at, {target} FROM raw.orders
"""


@dataclass
class Shops:
    """The world: its lake, stores, one model, and what was made of it so far."""

    settings: Settings
    folder: Path
    spec: ModelSpec
    views: dict[str, FeatureView] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lake = Lake(self.settings.lake_uri)
        self.store = ReleaseStore(self.settings.releases_dir)
        self.tracker = Tracker(self.settings)

    def training_set(self, as_of: datetime | None = None) -> TrainingSetRef:
        return build_training_set(self.lake, self.spec, self.folder, self.views, as_of=as_of)

    def candidates(self, ref: TrainingSetRef) -> SearchResult:
        return search(self.rows(ref), self.spec, tracker=self.tracker)

    def rows(self, ref: TrainingSetRef) -> TrainingRows:
        return TrainingRows.read(self.lake, self.spec, ref)

    def fit(self, candidates: SearchResult) -> TrainedModel:
        return fit_model(
            self.rows(candidates.training_set),
            self.spec,
            candidates,
            folder=self.folder,
            views=self.views,
            store=self.store,
            tracker=self.tracker,
            code_version="test",
        )

    def train(self, as_of: datetime | None = None) -> TrainedModel:
        return self.fit(self.candidates(self.training_set(as_of)))

    def evaluate(self, trained: TrainedModel) -> Evaluation:
        source = VersionRows(self.lake, self.spec, self.folder, self.views)
        return evaluate(self.rows(trained.training_set), self.spec, trained, self.store, source)

    def refit(self, trained: TrainedModel, evaluation: Evaluation) -> TrainedModel:
        ref = trained.training_set
        rows = self.rows(ref)
        return refit_model(
            read_rows(self.lake, self.spec, ref) if rows.stored is None else rows,
            self.spec,
            trained,
            evaluation,
            folder=self.folder,
            views=self.views,
            store=self.store,
            tracker=self.tracker,
        )

    def respecified(self, **changes: Any) -> "Shops":
        """Same stores, another spec."""
        return Shops(self.settings, self.folder, shop_spec(**changes), self.views)


def shop_spec(**changes: Any) -> ModelSpec:
    """Spec of the model `order_late`; `changes` replace its keys."""
    declared: dict[str, Any] = {
        "name": "order_late",
        "description": "Will an order arrive late?",
        "owner": "shops@example.com",
        "task": "binary",
        "target": "late",
        "spine": "late.sql",
        "id": "order_id",
        "timestamp": "ordered_at",
        "label_available_at": "known_at",
        "inputs": [
            {"name": "order_id", "type": "string", "required": False, "feature": False},
            {"name": "shop", "type": "string"},
            {"name": "channel", "type": "string", "required": False},
            {"name": "weight", "type": "number", "unit": "kg", "required": False, "minimum": 0},
            {"name": "ordered_at", "type": "timestamp", "feature": False},
        ],
        "request_features": "request_features.py",
        "lookups": [{"view": "shop_load"}],
        "split": {"holdout": "14 days", "validation": "14 days", "gap": "1 day"},
        "families": ["logistic_regression", "lightgbm"],
        "tuning": {"trials": 2, "seed": 7},
        "promotion": {"slices": ["shop"], "min_slice_rows": 100, "max_latency_ms": 50},
        "scoring": {"start": "2024-01-01"},
    }
    return ModelSpec.model_validate({**declared, **changes})


def regression_spec(**changes: Any) -> ModelSpec:
    """Spec of the model `order_minutes`."""
    return shop_spec(
        name="order_minutes", task="regression", target="minutes", spine="minutes.sql", families=["ridge", "lightgbm"]
    ).model_copy(update=changes)


def multiclass_spec(**changes: Any) -> ModelSpec:
    """Spec of the model `order_outcome`."""
    return shop_spec(name="order_outcome", task="multiclass", target="outcome", spine="outcome.sql").model_copy(
        update=changes
    )


def build_shops(settings: Settings, folder: Path, spec: ModelSpec | None = None, rows: int = 6000) -> Shops:
    """Write the world's tables and files; the same numbers every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for target in ("late", "minutes", "outcome"):
        (folder / f"{target}.sql").write_text(SPINE.format(target=target))
    (folder / "request_features.py").write_text(REQUEST_FEATURES)
    (folder / "views").mkdir(exist_ok=True)
    (folder / "views" / "shop_load.sql").write_text(VIEW)
    shops = Shops(settings, folder, spec or shop_spec(), load_views(folder / "views"))
    orders, loads = _tables(rows)
    shops.lake.replace("raw/orders", orders)
    shops.lake.replace("raw/loads", loads)
    for view in shops.views.values():
        compute_view(shops.lake, view)
    return shops


def push_loads(shops: Shops, at: datetime, load: float, *, pushed: datetime | None = None) -> None:
    """Push a row of the view for every shop, at its instant unless said otherwise, and take them into the lake."""
    view, settings = shops.views["shop_load"], shops.settings
    sent = Pushed(
        request_id="pushed",
        view=view.name,
        view_hash=view.hash,
        time=pushed or at,
        caller=None,
        types={"shop": "string", "event_time": "timestamp", "load": "number", "mood": "string"},
        rows=[[f"shop-{number}", int(at.timestamp() * 1_000_000), load, "pushed"] for number in range(8)],
    )
    log = SegmentLog(settings.push_log_dir, "push log")
    log.append(stream(view.name, view.hash), [sent])
    log.close()
    ingest_pushed(shops.lake, settings.push_log_dir, view.name)


def _tables(rows: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    random = np.random.default_rng(42)
    names = np.array([f"shop-{i}" for i in range(8)])
    load = random.gamma(2.0, 1.0, (len(names), DAYS))
    loads = pl.DataFrame(
        {
            "shop": np.repeat(names, DAYS),
            "seen_at": [START + timedelta(days=int(day)) for _ in names for day in range(DAYS)],
            "load": load.ravel(),
            "mood": np.where(load.ravel() > 2.5, "grim", "fine"),
        }
    ).filter(pl.int_range(pl.len()) % 17 != 0)
    shop = random.integers(0, len(names), rows)
    seconds = np.sort(random.integers(0, DAYS * 86400, rows))
    weight = random.gamma(2.0, 6.0, rows)
    channel = np.array(["web", "phone", "store"])[random.integers(0, 3, rows)]
    minutes = 12 * load[shop, seconds // 86400] + 0.8 * weight + 10 * (channel == "phone") - 45
    minutes = minutes + 2.5 * shop + random.normal(0, 12, rows)
    at = [START + timedelta(seconds=int(s)) for s in seconds]
    orders = pl.DataFrame(
        {
            "order_id": [f"order-{i}" for i in range(rows)],
            "shop": names[shop],
            "channel": [None if i % 23 == 0 else str(c) for i, c in enumerate(channel)],
            "weight": [None if i % 19 == 0 else float(w) for i, w in enumerate(weight)],
            "ordered_at": at,
            "known_at": [instant + timedelta(hours=5) for instant in at],
            "minutes": minutes,
            "late": minutes > 5,
            "outcome": np.where(minutes > 15, "late", np.where(minutes < -15, "early", "on time")),
        }
    )
    utc = pl.Datetime("us", "UTC")
    return orders.with_columns(pl.col("ordered_at", "known_at").cast(utc)), loads.with_columns(
        pl.col("seen_at").cast(utc)
    )
