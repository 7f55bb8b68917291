import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec
import numpy as np
import polars as pl
import pytest

from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.digests import BundleRefused, bundle_digest
from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Golden, Manifest
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops, multiclass_spec, regression_spec

REQUEST = {
    "order_id": "order-1",
    "shop": "shop-3",
    "channel": "web",
    "weight": 25,
    "ordered_at": datetime(2024, 2, 5, 9, tzinfo=UTC),
}
FOUND = {"shop_load__load": 2.0, "shop_load__mood": "fine"}


@pytest.fixture(scope="module")
def scorer(trained_shops: tuple[Shops, TrainedModel]) -> Scorer:
    shops, trained = trained_shops
    return Scorer.load(shops.store.bundle_path(trained.digest))


def test_request_becomes_a_row_and_a_score(scorer: Scorer) -> None:
    derived = scorer.derive(REQUEST)
    assert derived == {"weekday": 1, "heavy": True}
    values = {**REQUEST, **derived, **FOUND}
    row = dict(zip((feature.name for feature in scorer.manifest.features), scorer.matrix_row(values), strict=True))
    assert (row["weight"], row["weekday"], row["heavy"], row["shop_load__load"]) == (25.0, 1.0, 1.0, 2.0)
    score = scorer.score_row(values)
    assert isinstance(score, float)
    assert 0 < score < 1
    assert scorer.score(scorer.encode([values, values])).tolist() == [score, score]


def test_null_absent_and_unseen_values(scorer: Scorer) -> None:
    names = [feature.name for feature in scorer.manifest.features]
    row = dict(zip(names, scorer.matrix_row({"shop": "shop-99", "weight": None}), strict=True))
    assert row["shop"] == UNSEEN_CODE
    assert row["channel"] == MISSING_CODE
    assert math.isnan(row["weight"])
    assert math.isfinite(scorer.score_row({}))  # type: ignore[arg-type]


@pytest.mark.parametrize("feature", ["weight", "shop_load__load"])
def test_an_infinite_number_is_scored_as_missing_wherever_it_is_scored(scorer: Scorer, feature: str) -> None:
    values = {**REQUEST, **scorer.derive(REQUEST), **FOUND}
    missing = scorer.score_row({**values, feature: None})
    assert missing != scorer.score_row(values)
    names = [each.name for each in scorer.manifest.features]
    for infinite in (math.inf, -math.inf):
        row = {**values, feature: infinite}
        assert scorer.score_row(row) == missing
        assert scorer.score(scorer.encode([row, values]))[0] == missing
        assert math.isnan(scorer.matrix_row(row)[names.index(feature)])
        frame = pl.DataFrame({name: [row[name]] for name in names})
        assert scorer.score(FeatureEncoder(scorer.manifest.features).transform(frame))[0] == missing
    assert scorer.score_row(values) != missing  # nothing of it stays in the arrays that requests share


def test_one_row_alone_scores_as_it_does_among_others_in_any_thread(scorer: Scorer) -> None:
    values = {**REQUEST, **scorer.derive(REQUEST), **FOUND}
    rows = [{**values, "weight": weight, "shop": f"shop-{weight}"} for weight in range(40)]
    rows += [{**row, "weight": None, "shop_load__load": None} for row in rows]
    together = scorer.score(scorer.encode(rows)).tolist()
    assert np.unique(np.round(together, 3)).size > 10
    with ThreadPoolExecutor(4) as threads:
        for _ in range(50):
            assert list(threads.map(scorer.score_row, rows)) == pytest.approx(together, abs=1e-6)


def test_timestamps_are_read_in_any_zone(scorer: Scorer) -> None:
    for text in ("2024-02-05T09:00:00Z", "2024-02-05T10:00:00+01:00", "2024-02-05T09:00:00"):
        assert scorer.parse_inputs({"ordered_at": text})["ordered_at"] == REQUEST["ordered_at"]
    assert scorer.parse_inputs({"ordered_at": None}) == {"ordered_at": None}


def test_text_for_a_number_is_an_error(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="heavy"):
        scorer.matrix_row({"weight": "heavy"})


def test_golden_rows_hold_nulls_and_unseen_values(trained_shops: tuple[Shops, TrainedModel]) -> None:
    shops, trained = trained_shops
    golden = msgspec.json.decode(shops.store.read_bundle(trained.digest)["golden.json"], type=Golden)
    assert 15 <= len(golden.inputs) <= 25
    values = [value for row in golden.matrix for value in row]
    assert None in values
    assert MISSING_CODE in values
    assert UNSEEN_CODE in values


def test_wrong_golden_answer_or_matrix_is_refused(trained_shops: tuple[Shops, TrainedModel]) -> None:
    shops, trained = trained_shops
    files = shops.store.read_bundle(trained.digest)
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    golden = msgspec.json.decode(files["golden.json"], type=Golden)
    scorer = Scorer(manifest, files["model.onnx"])
    scorer.replay(golden)
    with pytest.raises(BundleRefused, match=r"golden row 0: wanted score 0\.5, found"):
        scorer.replay(msgspec.structs.replace(golden, scores=(0.5, *golden.scores[1:])))
    broken = ((*golden.matrix[0][:-1], 77.0), *golden.matrix[1:])
    with pytest.raises(BundleRefused, match="golden row 0, feature 'shop_load__mood': wanted 77"):
        scorer.replay(msgspec.structs.replace(golden, matrix=broken))


def test_bundle_that_fails_its_golden_rows_does_not_load(trained_shops: tuple[Shops, TrainedModel], tmp_path) -> None:
    shops, trained = trained_shops
    files = shops.store.read_bundle(trained.digest)
    golden = msgspec.json.decode(files["golden.json"])
    golden["scores"][3] = 0.123
    files["golden.json"] = msgspec.json.encode(golden)
    folder = tmp_path / bundle_digest(files)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(BundleRefused, match="golden row 3"):
        Scorer.load(folder)
    with pytest.raises(BundleRefused, match="named by its digest"):
        Scorer.load(tmp_path)


def test_prediction_follows_threshold_class_and_value(shops: Shops, scorer: Scorer) -> None:
    threshold = scorer.manifest.threshold
    assert threshold is not None
    assert scorer.prediction(threshold) is True
    assert scorer.prediction(np.nextafter(threshold, 0)) is False
    for spec, score, expected in (
        (multiclass_spec(), [0.1, 0.7, 0.2], "late"),
        (regression_spec(), 12.5, 12.5),
    ):
        trained = Shops(shops.settings, shops.folder, spec, shops.views).train()
        other = Scorer.load(shops.store.bundle_path(trained.digest))
        assert other.prediction(score) == expected
        answer = other.score_row({**REQUEST, **other.derive(REQUEST), **FOUND})
        assert len(answer) == 3 if isinstance(answer, list) else isinstance(answer, float)


def test_what_serving_imports_is_light() -> None:
    heavy = "dagster mlflow sklearn lightgbm pandas polars deltalake duckdb pyarrow matplotlib onnx ray optuna"
    code = (
        "import sys, ml_platform.inference.scorer, ml_platform.registry.releases\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
