"""The request that the command line prints is one of a real row, which the released model takes."""

import json
import shlex

import pytest

from ml_platform.inference.scorer import Scorer
from ml_platform.registry.example_request import curl_line, example_request
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.inputs.request_decoder import decoder_of
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops


def test_the_request_is_one_that_the_model_takes(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> None:
    store, digest = ReleaseStore(shops.settings.releases_dir), trained_shops[1].digest
    store.publish("order_late", [Target(version=1, digest=digest)], reason="try", by="ann")
    row = example_request(store, "order_late")
    manifest = Scorer.load(store.bundle_path(digest)).manifest
    assert {field.name for field in manifest.inputs if field.required} <= set(row)
    words = shlex.split(curl_line("http://127.0.0.1:8000", "order_late", row, with_key=True))
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:8000/predict/order_late"]
    assert "Authorization: Bearer $KEY" in words
    assert json.loads(words[-1]) == row
    assert decoder_of(manifest).decode(words[-1].encode())


def test_without_a_release_there_is_none(shops: Shops) -> None:
    with pytest.raises(LookupError, match="nothing of 'order_late' serves"):
        example_request(ReleaseStore(shops.settings.releases_dir), "order_late")
