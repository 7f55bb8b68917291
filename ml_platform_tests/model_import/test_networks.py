"""Networks of PyTorch by their weights, and of Keras by their layers, of which only known ones are ever loaded."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.keras_file import read_keras
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.safetensors_file import read_safetensors, read_tensors
from ml_platform.training.export.parity import compare
from ml_platform_tests.model_import.parity import number

FEATURES = [number("a"), number("b"), number("c")]
X = np.random.default_rng(3).normal(size=(50, 3))


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, body = {}, b""
    for name, one in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(one.shape), "data_offsets": [len(body), len(body) + one.nbytes]}
        body += one.astype("<f4").tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_safetensors_that_are_not_sound_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_tensors(path, {"0.weight": np.ones((2, 3), np.float32)})
    assert read_tensors(path)["0.weight"].shape == (2, 3)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ImportRefused, match="is no sound safetensors file"):
        read_tensors(path)
    write_tensors(path, {"conv.weight": np.ones((2, 3, 3), np.float32)})
    with pytest.raises(ImportRefused, match=r"has 'conv\.weight' of shape \[2, 3, 3\]: wanted"):
        read_safetensors(path, Declaration())
    layers = {"0.weight": np.ones((2, 3), np.float32), "2.weight": np.ones((1, 5), np.float32)}
    write_tensors(path, layers)
    with pytest.raises(ImportRefused, match="do not fit one another"):
        read_safetensors(path, Declaration())


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_sequential_of_pytorch(tmp_path: Path, activation: Any) -> None:
    torch = pytest.importorskip("torch")
    active = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[activation]
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), active(), torch.nn.Linear(4, 1))
    write_tensors(tmp_path / "m", {name: one.numpy() for name, one in module.state_dict().items()})
    declared = Declaration(activation=activation, link="sigmoid")
    bound = read_safetensors(tmp_path / "m", declared).bind("binary", FEATURES, 1)
    compare(bound.native, bound.onnx, "binary", FEATURES, X, tolerance=bound.tolerance)
    with torch.no_grad():
        own = torch.sigmoid(module(torch.from_numpy(X.astype(np.float32)))).numpy()[:, 0]
    assert np.allclose(bound.native(X), own, atol=1e-6)


def config_of(path: Path, layers: list[dict[str, Any]], kind: str = "Sequential") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "model.weights.h5"):
            archive.writestr(name, "{}")
        config = {"module": "keras", "class_name": kind, "registered_name": None, "config": {"layers": layers}}
        archive.writestr("config.json", json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"module": "keras.layers", "class_name": "Lambda", "registered_name": None}, "Lambda of keras.layers"),
        ({"module": "os", "class_name": "system", "registered_name": None}, "system of os"),
        ({"module": "keras", "class_name": "Dense", "registered_name": "own>Dense"}, "Dense of keras"),
        ({"module": "builtins", "class_name": "function", "config": "f"}, "function of builtins"),
        ({"class_name": "__lambda__", "config": {"value": "4wAA"}}, "__lambda__ of nowhere"),
    ],
)
def test_layers_of_keras_that_may_run_code_are_refused_unread(
    tmp_path: Path, layer: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportRefused, match=rf"{message}, .*Nothing was loaded"):
        read_keras(config_of(tmp_path / "m.keras", [layer]), Declaration())


def test_a_class_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="a class of its own"):
        read_keras(config_of(tmp_path / "m.keras", [], kind="MyModel"), Declaration())


@pytest.mark.slow
def test_a_network_of_keras_with_two_inputs(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    layers = keras.layers
    one, two = keras.Input((2,), name="one"), keras.Input((1,), name="two")
    left = layers.Dense(8, activation="relu")(layers.BatchNormalization()(one))
    right = layers.Normalization(mean=[4.0], variance=[2.0])(two)
    joined = layers.Dropout(0.2)(layers.Concatenate()([left, right, layers.Rescaling(0.5, 1.0)(two)]))
    model = keras.Model([one, two], layers.Dense(3, activation="softmax")(joined))
    model.save(tmp_path / "m.keras")
    read = read_keras(tmp_path / "m.keras", Declaration())
    assert (read.inputs, read.width) == ((), 3)
    bound = read.bind("multiclass", FEATURES, 1)
    compare(bound.native, bound.onnx, "multiclass", FEATURES, X, tolerance=bound.tolerance)
    own = model.predict([X[:, :2], X[:, 2:]], verbose=0)
    assert np.allclose(bound.native(X), own, atol=1e-6)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="elu")])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ImportRefused, match="the activation 'elu' has no graph here"):
        read_keras(tmp_path / "m.keras", Declaration()).bind("binary", FEATURES, 1)
