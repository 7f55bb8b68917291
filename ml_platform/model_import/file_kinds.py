"""What a model file is, told by its bytes before any library sees it, and whether loading it could run code.

A file's name proves nothing: a pickle may be called `model.onnx`. Whatever is not known to be data counts as code.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ml_platform.model_import.refused import ImportRefused

_HEAD = 4096
_LARGEST_HEADER = 100_000_000  # of a safetensors file


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes
    ----------
    name
        What it is called in messages and tags.
    flavor
        Library that made it, as `--flavor` names it.
    runs_code
        Whether loading it runs code that the file itself brings.
    """

    name: str
    flavor: str
    runs_code: bool = False


ONNX: Final = FileKind("ONNX", "onnx")
XGBOOST: Final = FileKind("XGBoost JSON or UBJSON", "xgboost")
LIGHTGBM: Final = FileKind("LightGBM text", "lightgbm")
CATBOOST: Final = FileKind("CatBoost cbm", "catboost")
KERAS: Final = FileKind("Keras .keras", "keras")
SAFETENSORS: Final = FileKind("safetensors", "pytorch")
PICKLE: Final = FileKind("pickle or joblib", "sklearn", runs_code=True)
SKOPS: Final = FileKind("skops", "sklearn", runs_code=True)
FLAVORS: Final = ("onnx", "xgboost", "lightgbm", "catboost", "keras", "pytorch", "sklearn")

_NEVER: Final = {
    "torch": "a file of torch.save, TorchScript or torch.export, which brings code. Export the module by "
    "torch.onnx.export and import the .onnx file, or store the weights of an nn.Sequential by safetensors",
    "hdf5": "HDF5, the old format of Keras, which may hold code. Store the model as .keras",
    "numpy": "arrays of NumPy, which are no model",
    "pmml": "XML (PMML perhaps), which is not read. Convert the model to ONNX",
    "binary xgboost": "XGBoost's old binary format. Load it with the XGBoost that wrote it, and store it by "
    "save_model('model.ubj')",
}


def kind_of(path: Path) -> FileKind:  # noqa: PLR0911, PLR0912 - one for each kind of file
    """Tell what a file is by its bytes.

    Raises
    ------
    ImportRefused
        When it is missing, empty, cut off, or nothing that is read.
    """
    if path.is_dir():
        raise ImportRefused(
            f"{path} is a folder without a file MLmodel: wanted a model file, or the folder of an MLflow model"
        )
    if not path.is_file():
        raise ImportRefused(
            f"{path} does not exist: wanted a model file, an MLflow URI or the folder of an MLflow model"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise ImportRefused(f"{path} is empty: store the model again")
    if head[:4] == b"PK\x03\x04":
        return _of_zip(path)
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        return PICKLE
    if head[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZ") or head[:6] in (
        b"\xfd7zXZ\x00",
        b"\x5d\x00\x00\x80\x00\x00",
        b"ZF0x",
        b"\x04\x22\x4d\x18",
    ):
        return PICKLE  # joblib's compressed pickles
    if head.startswith(b"CBM1"):
        return CATBOOST
    if head.startswith(b"tree\n"):
        return LIGHTGBM
    if head.startswith(b"\x89HDF"):
        raise _never(path, "hdf5")
    if head.startswith(b"\x93NUMPY"):
        raise _never(path, "numpy")
    if head.lstrip().startswith(b"<"):
        raise _never(path, "pmml")
    if head.startswith((b"binf", b"bs64")):
        raise _never(path, "binary xgboost")
    if head[:2] in (b"{L", b"{l", b"{i", b"{U") or head.lstrip().startswith(b"{"):
        return _of_braces(path, head)
    if _is_safetensors(head, size):
        return SAFETENSORS
    if head[:1] == b"\x08":
        return ONNX
    if head[:1] in b"(c]})IVSFN" and b"\n" in head:
        return PICKLE  # protocol 0 or 1, which is text
    raise ImportRefused(
        f"{path}: its first bytes {head[:8]!r} are of no model that is known. Wanted ONNX, XGBoost .json or .ubj, "
        "LightGBM "
        "text, CatBoost .cbm, .keras, .safetensors, or scikit-learn's pickle, joblib or skops (with --trust)"
    )


def _of_zip(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ImportRefused(f"{path} is a zip file that is cut off or damaged ({error}): copy it again") from error
    if {"metadata.json", "config.json", "model.weights.h5"} <= set(names):
        return KERAS
    if "schema.json" in names:
        return SKOPS
    if any(name.endswith(".npy") for name in names):
        raise _never(path, "numpy")
    if any(name.endswith(("data.pkl", "/version")) or "/code/" in name for name in names):
        raise _never(path, "torch")
    raise ImportRefused(f"{path} is a zip file of no model that is known; it holds {sorted(names)[:5]}")


def _of_braces(path: Path, head: bytes) -> FileKind:
    if b"learner" in head[:200] or b'"learner"' in path.read_bytes():
        return XGBOOST
    if b'"tree_info"' in head or b'"oblivious_trees"' in head:
        raise ImportRefused(
            f"{path} is a dump in JSON from which its library does not load models. Store LightGBM by "
            "save_model('model.txt'), CatBoost by save_model('model.cbm')"
        )
    raise ImportRefused(f"{path} looks like JSON or UBJSON, but is no model of XGBoost (it has no `learner`)")


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= min(_LARGEST_HEADER, size - 8)


def _never(path: Path, what: str) -> ImportRefused:
    return ImportRefused(f"{path} is {_NEVER[what]}")


def check_kind(path: Path, *, flavor: str, trust: bool) -> FileKind:
    """Tell what a file is, and refuse what was not asked for or might run code.

    Parameters
    ----------
    path
        The file, which is not loaded.
    flavor
        `auto`, or what it is expected to be.
    trust
        Whether code that it brings may run.

    Raises
    ------
    ImportRefused
        When it is something else, or would run code and is not trusted.
    """
    kind = kind_of(path)
    if flavor not in ("auto", kind.flavor):
        raise ImportRefused(
            f"{path}: --flavor {flavor} was asked for, but its bytes are {kind.name} ({kind.flavor}); leave --flavor "
            "out, or "
            "give the right file"
        )
    if kind.runs_code and not trust:
        raise ImportRefused(
            f"{path} is {kind.name}: to load it runs whatever code the file brings, with your rights. Nothing was "
            "loaded. "
            "If you know who made the file and how it came here: --trust. Otherwise have it converted to ONNX where it "
            "was trained"
        )
    return kind
