"""300 LightGBM trees over 30 features of the request, 25 numbers and 5 strings: as a release, and as its own file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from ml_platform.inference.scorer import Scorer
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Feature, Golden, Input, Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving import releases

if TYPE_CHECKING:
    from lightgbm import LGBMClassifier

NUMBERS, STRINGS = 25, 5
CATEGORIES = tuple(f"value {number}" for number in range(20))


def plain_rows() -> list[dict[str, Any]]:
    """Rows of 25 numbers and 5 strings."""
    random = np.random.default_rng(1)
    numbers = random.normal(size=(200, NUMBERS)).round(4).tolist()
    return [
        {
            **{f"number_{position}": value for position, value in enumerate(row)},
            **{f"category_{position}": CATEGORIES[random.integers(20)] for position in range(STRINGS)},
        }
        for row in numbers
    ]


def encoded(row: dict[str, Any]) -> list[float]:
    """The numbers that a row's features become before the trees see them."""
    return [float(CATEGORIES.index(value)) if isinstance(value, str) else value for value in row.values()]


def boosted_model(width: int) -> "LGBMClassifier":
    """300 trees over so many columns."""
    from lightgbm import LGBMClassifier

    random = np.random.default_rng(0)
    X = random.normal(size=(20_000, width)) * 20
    y = (X[:, 1] + X[:, 5] * X[:, 9] / 20 + random.normal(size=len(X)) * 10) > 0
    return LGBMClassifier(n_estimators=300, num_leaves=31, verbosity=-1, random_state=0).fit(X, y)


def boosted_graph(width: int = len(releases.features())) -> bytes:
    """These trees as training exports them; over the columns of the tests' model, or so many others."""
    from ml_platform.training.export.onnx_trees import export_trees
    from ml_platform.training.families.lightgbm import trees_of

    return export_trees(trees_of(boosted_model(width).booster_, "binary"), "binary", width)


def write_plain(path: Path) -> None:
    """Write the model to LightGBM's own text file."""
    boosted_model(NUMBERS + STRINGS).booster_.save_model(path)


def publish_plain(settings: Settings, model: str = "plain") -> None:
    """Release a model whose 30 features all come with the request."""
    names = [f"number_{position}" for position in range(NUMBERS)]
    strings = [f"category_{position}" for position in range(STRINGS)]
    features = [Feature(name=name, kind="numeric", source="input") for name in names]
    features += [Feature(name=name, kind="categorical", source="input", categories=CATEGORIES) for name in strings]
    graph = boosted_graph(NUMBERS + STRINGS)
    manifest = msgspec.json.decode(releases.bundle(1)["manifest.json"], type=Manifest)
    manifest = msgspec.structs.replace(
        manifest,
        model=model,
        id=None,
        as_of=None,
        inputs=tuple(
            [Input(name=name, type="number") for name in names] + [Input(name=name, type="string") for name in strings]
        ),
        derived=(),
        lookups=(),
        features=tuple(features),
    )
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(graph, manifest))
    scorer = Scorer(manifest, graph)
    row = plain_rows()[0]
    golden = Golden(
        inputs=(row,),
        looked_up=({},),
        matrix=(tuple(scorer.matrix_row(row)),),
        scores=(scorer.score_row(row),),
    )
    store = ReleaseStore(settings.releases_dir)
    files = {"manifest.json": msgspec.json.encode(manifest), "model.onnx": graph}
    digest = store.put_bundle({**files, "golden.json": msgspec.json.encode(golden)})
    store.publish(model, [Target(version=1, digest=digest)], reason="benchmark", by="benchmark")
