"""Scores with a bundle: values of a request → row of features → ONNX Runtime → score.

Serving, batch scoring and the promotion gate all use `Scorer`, so what was evaluated is what serves. It imports neither
training libraries nor the lake.
"""

import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np

from ml_platform.features.expressions.columns import compile_columns
from ml_platform.features.expressions.compile import evaluator
from ml_platform.inference.calibration import CalibratedExplainer
from ml_platform.inference.explain import METADATA_KEY, unpack
from ml_platform.inference.explainer import Explainer
from ml_platform.inference.missing_values import infinite_as_missing
from ml_platform.instants import read_instant
from ml_platform.registry.digests import BUNDLE_FILES, BundleRefused, check_bundle, is_digest
from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Golden, Manifest

if TYPE_CHECKING:
    import onnxruntime

GOLDEN_TOLERANCE = 1e-4  # for float32 graphs, as in the parity gate; tree ensembles differ by 1e-15


class Scorer:
    """A loaded model, safe to share between threads.

    Build it with `Scorer.load`, which verifies digests and golden scores first. For one row:
    `scorer.score_row({**inputs, **scorer.derive(inputs), **looked_up})`.
    """

    def __init__(self, manifest: Manifest, onnx: bytes, digest: str = "") -> None:
        self.manifest = manifest
        self.digest = digest
        self.folder: Path | None = None  # of the bundle, when it was loaded from one
        self._session = session_of(onnx)
        self._run = self._session.run
        self._outputs = ["score"]
        self._explainer: Explainer | None = None  # made when it is first asked for
        self._derived = tuple((feature.name, evaluator(feature.tree)) for feature in manifest.derived)
        self._names = tuple(feature.name for feature in manifest.features)
        self._coded = tuple(
            (position, {category: float(code) for code, category in enumerate(feature.categories)})
            for position, feature in enumerate(manifest.features)
            if feature.categories is not None
        )
        self._codes_of = dict(self._coded)
        self._bind_one_row()
        self.column_features = compile_columns([(feature.name, feature.tree) for feature in manifest.derived])
        self._timestamps = tuple(field.name for field in manifest.inputs if field.type == "timestamp")

    def _bind_one_row(self) -> None:
        """Bind the graph to fixed arrays for one row and its score, so that a request need not make new ones."""
        self._one_row = threading.Lock()  # held while a row is scored, because the arrays are shared
        self._row = np.zeros((1, len(self._names)))
        self._row_score = self.score(self._row)
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input("X", self._row)
        kind, shape = self._row_score.dtype.type, self._row_score.shape
        self._binding.bind_output("score", "cpu", 0, kind, shape, self._row_score.ctypes.data)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the bundle in folder `path`, whose name is its digest.

        Raises
        ------
        BundleRefused
            When files are missing or altered, or the golden rows do not give the golden scores.
        """
        if not path.is_dir() or not is_digest(path.name):
            raise BundleRefused(
                f"{path}: wanted the folder of a bundle, named by its digest; take it from the release store"
            )
        files = {name: (path / name).read_bytes() for name in BUNDLE_FILES if (path / name).is_file()}
        scorer = cls.of_files(files, path.name)
        scorer.folder = path.resolve()
        return scorer

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], digest: str) -> Self:
        """Load the files of a bundle by their names, as `load` does (raises BundleRefused)."""
        manifest = check_bundle(files, digest)
        try:
            scorer = cls(manifest, files["model.onnx"], digest)
            golden = msgspec.json.decode(files["golden.json"], type=Golden)
        except Exception as error:
            raise BundleRefused(f"bundle {digest[:12]} of {manifest.model} cannot be loaded: {error}") from error
        scorer.replay(golden)
        return scorer

    def replay(self, golden: Golden) -> None:
        """Score the golden rows again; raises BundleRefused, which names the first difference in matrix or score."""
        name = f"bundle {self.digest[:12]} of {self.manifest.model}"
        is_value = self.manifest.task == "regression"
        usual = float(np.abs(golden.scores).mean()) if is_value and golden.scores else 0.0
        for number, (inputs, looked_up) in enumerate(zip(golden.inputs, golden.looked_up, strict=True)):
            inputs = self.parse_inputs(inputs)  # noqa: PLW2901
            row = self.matrix_row({**inputs, **self.derive(inputs), **looked_up})
            for feature, found, stored in zip(self.manifest.features, row, golden.matrix[number], strict=True):
                wanted = math.nan if stored is None else stored
                if found != wanted and not (math.isnan(found) and math.isnan(wanted)):
                    raise BundleRefused(
                        f"{name}: golden row {number}, feature '{feature.name}': wanted {wanted}, found {found}"
                    )
            score = self.score(np.array([row], dtype=np.float64))[0]
            tolerance = GOLDEN_TOLERANCE
            if is_value:  # as in the parity gate: sums of larger values are rounded as those are
                tolerance *= max(1.0, usual, abs(golden.scores[number]))
            if not np.allclose(score, golden.scores[number], rtol=0, atol=tolerance):
                raise BundleRefused(f"{name}: golden row {number}: wanted score {golden.scores[number]}, found {score}")

    def parse_inputs(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a row's inputs from JSON for `derive`: timestamps become UTC datetimes."""
        parsed = dict(row)
        for name in self._timestamps:
            value = parsed.get(name)
            if isinstance(value, str):
                parsed[name] = read_instant(value, recorded=True).astimezone(UTC)
        return parsed

    def derive(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Compute the derived features of one row from its typed inputs (timestamps as UTC datetimes).

        A derived feature may use those declared before it.
        """
        known = dict(inputs)
        for name, compute in self._derived:
            known[name] = compute(known)
        return {name: known[name] for name, _ in self._derived}

    def matrix_row(self, values: Mapping[str, Any]) -> list[float]:
        """Make one row of the matrix from inputs, derived and looked-up features by name; absent ones are null."""
        row = np.array(self._codes(values), dtype=np.float64)
        return infinite_as_missing(row).tolist()

    def _codes(self, values: Mapping[str, Any]) -> list[Any]:
        """Make one row of the matrix before conversion to floats, with None for null."""
        row = list(map(values.get, self._names))
        for position, codes in self._coded:
            value = row[position]
            row[position] = MISSING_CODE if value is None else codes.get(value, UNSEEN_CODE)
        return row

    def encode(self, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """Make the matrix (rows × features, float64) of rows of values, each as for `matrix_row`."""
        encoded = [self._codes(row) for row in rows]
        return np.array(encoded, dtype=np.float64).reshape(len(encoded), len(self._names))

    def encode_column(self, position: int, values: Sequence[Any]) -> np.ndarray:
        """Encode many values of one feature as `matrix_row` encodes each (float64)."""
        codes = self._codes_of.get(position)
        if codes is None:
            return np.array(values, dtype=np.float64)  # None becomes NaN
        get = codes.get
        return np.array([MISSING_CODE if value is None else get(value, UNSEEN_CODE) for value in values])

    def score(self, matrix: np.ndarray) -> np.ndarray:
        """Scores of a matrix: (rows,) for binary and regression, (rows × classes) for multiclass."""
        return self._run(self._outputs, {"X": infinite_as_missing(matrix)})[0]

    def score_row(self, values: Mapping[str, Any]) -> float | list[float]:
        """Score one row of values; the fastest way for a request of one row."""
        with self._one_row:
            self._row[0] = self._codes(values)
            np.copyto(self._row, np.nan, where=np.isinf(self._row))
            self._session.run_with_iobinding(self._binding)
            score: float | list[float] = self._row_score[0].tolist()
        return score

    def explainer(self) -> Explainer | None:
        """The explainer of this model's scores; None for a graph that was exported without explanations.

        It explains calibrated log-odds; where the graph explains probabilities, those before calibration.
        """
        if self._explainer is None:
            text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
            if text is not None:
                explainer = unpack(text, len(self._names))
                if self.manifest.calibration is not None and not explainer.probabilities:
                    explainer = CalibratedExplainer(explainer, self.manifest.calibration)
                self._explainer = explainer
        return self._explainer

    def prediction(self, score: float | Sequence[float]) -> bool | str | int | float:
        """The prediction of a score: true at or above the threshold, the most probable class, or the value itself."""
        if self.manifest.task == "binary":
            return bool(score >= self.manifest.threshold)  # type: ignore[operator]
        if self.manifest.task == "multiclass":
            return self.manifest.classes[int(np.argmax(score))]
        return float(score)  # type: ignore[arg-type]


def session_of(graph: bytes) -> "onnxruntime.InferenceSession":
    """Make a session of a graph, which runs on one thread and reads no file."""
    import onnxruntime  # slow, and not needed to load a code location

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # with the default, one row costs 1.8 times the CPU
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A graph may name files with its weights, by default any below the working directory. Allow none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
