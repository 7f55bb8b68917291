"""The reader of each kind of file."""

from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.file_kinds import CATBOOST, KERAS, LIGHTGBM, ONNX, SAFETENSORS, XGBOOST
from ml_platform.model_import.foreign import ForeignModel
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.source import Source


def read_model(source: Source, declared: Declaration) -> tuple[ForeignModel, list[str]]:
    """Read a model file, and say what its library warned of (raises ImportRefused).

    A file that runs code has been refused by `open_source` unless it is trusted.
    """
    try:
        return _read(source, declared)
    except ImportRefused as error:  # of a model of MLflow the file is a copy in a temporary folder
        raise ImportRefused(str(error).replace(str(source.path), source.uri)) from error


def _read(source: Source, declared: Declaration) -> tuple[ForeignModel, list[str]]:  # noqa: PLR0911 - by kind
    from ml_platform.model_import import boosters, keras_file, onnx_file, safetensors_file, sklearn_file

    match source.kind:
        case kind if kind == ONNX:
            return onnx_file.read_onnx(source.path, declared), []
        case kind if kind == XGBOOST:
            return boosters.read_xgboost(source.path), []
        case kind if kind == LIGHTGBM:
            return boosters.read_lightgbm(source.path), []
        case kind if kind == CATBOOST:
            return boosters.read_catboost(source.path), []
        case kind if kind == KERAS:
            return keras_file.read_keras(source.path, declared), []
        case kind if kind == SAFETENSORS:
            return safetensors_file.read_safetensors(source.path, declared), []
        case kind:
            return sklearn_file.read_sklearn(source.path, kind)
