"""What an explanation of one row costs, by family: `python benchmarks/explanations.py`, after `make setup-families`.

Models of 20,000 rows and 40 features, trained with the families' default parameters, explain rows one by one, as the
server does. The figure is CPU time, beside that of the score itself. The difference is the largest, over the rows,
between the probability that base and contributions together give and the score.
"""

import sys
import time
from pathlib import Path

import numpy as np
from _results import write_section

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ml_platform.inference.explain import METADATA_KEY, unpack  # noqa: E402
from ml_platform.registry.manifest import Feature  # noqa: E402
from ml_platform.training.families.fitting import train_estimator  # noqa: E402
from ml_platform.training.families.registry import get_family  # noqa: E402

ROWS, NUMBERS, PLACES, EXPLAINED = 20_000, 35, 5, 200
MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "logistic_regression": ("logistic_regression", {}),
    "lightgbm": ("lightgbm", {}),
    "torch_mlp, 2 layers of 64": ("torch_mlp", {}),
    "torch_mlp, 3 layers of 128": ("torch_mlp", {"hidden": 128, "layers": 3}),
}


def data() -> tuple[tuple[Feature, ...], np.ndarray, np.ndarray]:
    """Features, a matrix with nulls and categories, and labels that some of the columns decide."""
    random = np.random.default_rng(0)
    numbers = random.normal(size=(ROWS, NUMBERS))
    places = random.integers(-2, 20, (ROWS, PLACES))
    odds = numbers[:, 0] * numbers[:, 1] + np.abs(numbers[:, 2]) - 0.7 + 0.1 * places[:, 0]
    numbers[random.random(numbers.shape) < 0.05] = np.nan
    features = [Feature(name=f"number_{i}", kind="numeric", source="input") for i in range(NUMBERS)]
    names = tuple(f"place {i}" for i in range(20))
    features += [
        Feature(name=f"place_{i}", kind="categorical", source="input", categories=names) for i in range(PLACES)
    ]
    return tuple(features), np.column_stack([numbers, places]), (odds > random.logistic(size=ROWS)).astype(np.float64)


def measure(name: str, family_name: str, changes: dict[str, int]) -> str:
    """Train one model, explain rows of it, and return a line of the table."""
    import onnxruntime

    features, X, y = data()
    family, first, later = get_family(family_name), slice(ROWS - 2_000), slice(ROWS - 2_000, None)
    params = family.default_params("binary") | changes
    estimator = train_estimator(family, "binary", features, params, 0, X[first], y[first], (X[later], y[later]))
    onnx = family.export(estimator, "binary", features)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    explainer = unpack(session.get_modelmeta().custom_metadata_map[METADATA_KEY], len(features))
    rows = [X[place : place + 1] for place in range(EXPLAINED)]
    scored, explained, apart = [], [], []
    for row in rows:
        started = time.process_time()
        (score,) = session.run(["score"], {"X": row})
        between = time.process_time()
        found = explainer.explain(row)
        explained.append(time.process_time() - between)
        scored.append(between - started)
        raw = float(found.base[0] + found.contributions.sum())
        apart.append(abs(1 / (1 + np.exp(-raw)) - score[0]))
    times = [f"{1000 * np.median(one):.3f}" for one in (scored, explained)]
    return f"| {name} | {explainer.method} | {times[0]} | {times[1]} | {max(apart):.0e} |"


def main() -> None:
    """Measure all and write the table."""
    lines = [
        f"Median CPU time per row of {EXPLAINED} rows, in ms; {NUMBERS} numbers, {PLACES} categories.",
        "",
        "| model | method | score | explanation | difference |",
        "|---|---|---|---|---|",
        *(measure(name, family, changes) for name, (family, changes) in MODELS.items()),
    ]
    packages = ["lightgbm", "onnxruntime", "torch"]
    print(write_section("Explanations", "python benchmarks/explanations.py", lines, packages=packages))


if __name__ == "__main__":
    main()
