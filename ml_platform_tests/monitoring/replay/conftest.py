"""A small world that serves: version 1 answered a week of orders, version 2 does without its look-ups."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from ml_platform.features.training_sets.build import feature_rows
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.inference.ingest_log import ingest_log
from ml_platform.inference.log import SHADOW, InferenceLog, Record
from ml_platform.inference.scorer import Scorer
from ml_platform.monitoring.replay.documents import ReplayReport
from ml_platform.monitoring.replay.replay import Challenger, replay
from ml_platform.promotion.declared import DeclaredModel
from ml_platform.registry.manifest import Target
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import START, Shops

FIRST_DAY, DAYS = 51, 7
INPUTS = ("order_id", "shop", "channel", "weight", "ordered_at")


@dataclass
class Served:
    """The world, and what its versions are."""

    shops: Shops
    digests: dict[int, str]

    def replay(self, version: int, **options: Any) -> ReplayReport:
        declared = DeclaredModel(self.shops.spec, self.shops.folder, self.shops.views)
        challenger = Challenger(self.digests[version], f"version {version}", version)
        return replay(self.shops.lake, self.shops.store, declared, challenger, **options)

    def serve(self, version: int) -> None:
        self.shops.store.publish(
            "order_late", [Target(version=version, digest=self.digests[version])], reason="test", by="test"
        )

    def answer(self, version: int, rows: pl.DataFrame, *, shadow: bool = False, weight: float = 1.0) -> None:
        """Log answers of a version to rows that have its features, as serving writes them, and ingest them."""
        settings, scorer = self.shops.settings, Scorer.load(self.shops.store.bundle_path(self.digests[version]))
        features = [feature.name for feature in scorer.manifest.features]
        log = InferenceLog(settings.inference_log_dir)
        name = f"order_late{SHADOW if shadow else ''}"
        log.append(name, [self._record(scorer, version, row, features, weight) for row in rows.iter_rows(named=True)])
        log.close()
        ingest_log(self.shops.lake, settings)

    def _record(
        self, scorer: Scorer, version: int, row: dict[str, Any], features: Sequence[str], weight: float
    ) -> Record:
        values = {name: float(row[name]) if isinstance(row[name], bool | int) else row[name] for name in features}
        score = scorer.score_row(values)
        sent = {name: row[name].isoformat() if name == "ordered_at" else row[name] for name in INPUTS}
        return Record(
            request_id=f"request-{row['order_id']}",
            row=0,
            id=row["order_id"],
            model="order_late",
            version=version,
            digest=self.digests[version],
            time=row["ordered_at"] + timedelta(seconds=1),
            as_of=row["ordered_at"],
            caller="test",
            inputs=json.loads(json.dumps(sent)),
            features=values,
            score=score,
            prediction=scorer.prediction(score),
            sample_weight=weight,
        )

    def orders(self, first_day: int = FIRST_DAY, days: int = DAYS) -> pl.DataFrame:
        """Orders of some days with the features of version 1, which has all."""
        shops = self.shops
        manifest = shops.store.load_manifest(self.digests[1])
        definitions = FeatureDefinitions.of_version(manifest, shops.spec, shops.views)
        start = START + timedelta(days=first_day)
        return feature_rows(
            shops.lake, shops.spec, shops.folder, shops.views, definitions, start, start + timedelta(days=days)
        )


@pytest.fixture(scope="package")
def served(trained_shops: tuple[Shops, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Version 1 serves and answered a week. Read only."""
    first, trained = trained_shops
    home = shutil.copytree(first.settings.home, tmp_path_factory.mktemp("replayed") / "shops")
    spec = first.spec.model_copy(update={"monitoring": first.spec.monitoring.model_copy(update={"min_rows": 200})})
    shops = Shops(Settings(home=home), first.folder, spec, first.views)
    second = shops.respecified(lookups=(), families=["logistic_regression"], tuning={"trials": 1}).train(
        START + timedelta(days=50)
    )
    world = Served(shops, {1: trained.digest, 2: second.digest})
    for version, digest in world.digests.items():
        shops.store.register_version("order_late", version, digest)
    world.serve(1)
    world.answer(1, world.orders())
    return world


@pytest.fixture
def own(served: Served, tmp_path: Any) -> Served:
    """A copy of the world to change."""
    home = shutil.copytree(served.shops.settings.home, tmp_path / "home")
    shops = Shops(Settings(home=home), served.shops.folder, served.shops.spec, served.shops.views)
    return Served(shops, dict(served.digests))
