"""A file is what its bytes say: whatever could run code is refused before anything is loaded."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform.model_import.file_kinds import (
    CATBOOST,
    KERAS,
    LIGHTGBM,
    ONNX,
    SAFETENSORS,
    XGBOOST,
    check_kind,
    kind_of,
)
from ml_platform.model_import.refused import ImportRefused


class Touches:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Is there once a malicious file has run."""
    return tmp_path / "ran"


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


PACKED = {
    "protocol 0": lambda bomb: pickle.dumps(bomb, 0),
    "protocol 2": lambda bomb: pickle.dumps(bomb, 2),
    "protocol 5": lambda bomb: pickle.dumps(bomb, 5),
    "zlib": lambda bomb: zlib.compress(pickle.dumps(bomb)),
    "gzip": lambda bomb: gzip.compress(pickle.dumps(bomb)),
    "bz2": lambda bomb: bz2.compress(pickle.dumps(bomb)),
    "xz": lambda bomb: lzma.compress(pickle.dumps(bomb)),
    "lzma": lambda bomb: lzma.compress(pickle.dumps(bomb), format=lzma.FORMAT_ALONE),
    "torch": lambda bomb: zipped(**{"archive__data.pkl": pickle.dumps(bomb), "archive__version": b"3"}),
    "skops": lambda bomb: zipped(**{"schema.json": b"{}", "0.pickle": pickle.dumps(bomb)}),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", ["model.pkl", "model.onnx", "model.keras", "model.txt"])
def test_nothing_of_a_malicious_file_runs_whatever_it_is_called(
    tmp_path: Path, ran: Path, packed: str, name: str
) -> None:
    bomb = PACKED[packed](Touches(ran))
    if packed == "protocol 5":
        pickle.loads(bomb)
        assert ran.exists(), "the pickle does not do what it is made for"
        ran.unlink()
    path = tmp_path / name
    path.write_bytes(bomb)
    for flavor in ("auto", "onnx", "sklearn"):
        with pytest.raises(ImportRefused):
            check_kind(path, flavor=flavor, trust=False)
    assert not ran.exists()


def test_data_is_told_by_its_bytes(tmp_path: Path) -> None:
    contents = {
        XGBOOST: b'{"learner":{"attributes":{}}}',
        LIGHTGBM: b"tree\nversion=v4\n",
        CATBOOST: b"CBM1\x00\x00",
        ONNX: b"\x08\x0a\x12\x05",
        SAFETENSORS: (2).to_bytes(8, "little") + b"{}",
        KERAS: zipped(**{"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b""}),
    }
    for kind, content in contents.items():
        path = tmp_path / "file"
        path.write_bytes(content)
        assert kind_of(path) == kind
        assert not kind.runs_code


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "of no model that is known"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"PK\x03\x04 cut off", "cut off or damaged"),
        (b"\x93NUMPY", "no model"),
        (b"<?xml version='1.0'?><PMML/>", "Convert the model to ONNX"),
        (b"binf\x00", "save_model"),
        (b'{"tree_info": []}', "a dump in JSON"),
        (b'{"a": 1}', "no `learner`"),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ImportRefused, match=message):
        kind_of(path)


def test_another_flavor_than_asked_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(b"tree\n")
    with pytest.raises(ImportRefused, match="its bytes are LightGBM text"):
        check_kind(path, flavor="xgboost", trust=True)
    with pytest.raises(ImportRefused, match="does not exist"):
        check_kind(tmp_path / "nothing", flavor="auto", trust=True)
    with pytest.raises(ImportRefused, match="is a folder"):
        check_kind(tmp_path, flavor="auto", trust=True)


def test_trust_lets_a_pickle_through(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert check_kind(path, flavor="auto", trust=True).flavor == "sklearn"
