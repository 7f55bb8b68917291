"""Where a model comes from: a file, or an MLflow model of which the file with its data is found without loading it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ml_platform.model_import.file_kinds import FileKind, check_kind
from ml_platform.model_import.refused import ImportRefused
from ml_platform.registry.tracking import Tracker

_SCHEMES = ("models:/", "runs:/")
# Flavor in the file MLmodel → its keys that may name the file; the first flavor that is there counts.
_DATA_KEYS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("data",),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "catboost": ("data",),
    "sklearn": ("pickled_model",),
    "keras": ("data",),
    "tensorflow": ("data",),
    "pytorch": ("model_data", "data"),
}


@dataclass(frozen=True)
class Source:
    """A model file that may be loaded.

    Attributes
    ----------
    uri
        As it was named.
    path
        The file.
    kind
        What its bytes are.
    digest
        SHA-256 of the file.
    inputs
        Names of its inputs by MLflow's signature; none without one.
    origin
        What MLflow knows of its training, in words.
    """

    uri: str
    path: Path
    kind: FileKind
    digest: str
    inputs: tuple[str, ...] = ()
    origin: str = ""
    run_id: str | None = None


def open_source(uri: str, *, flavor: str, trust: bool, tracker: Tracker, folder: Path) -> Source:
    """Find the file of a model and tell by its bytes what it is. Nothing is loaded.

    Parameters
    ----------
    uri
        A file, the folder of an MLflow model, or `models:/…` and `runs:/…` of the project's MLflow.
    flavor, trust
        As for `check_kind`.
    tracker
        The project's MLflow.
    folder
        Gets what is downloaded.

    Raises
    ------
    ImportRefused
        When there is no such model, or it is not to be loaded.
    """
    if uri.startswith(_SCHEMES):
        return _of_mlflow(uri, _downloaded(uri, tracker, folder), flavor=flavor, trust=trust, tracker=tracker)
    path = Path(uri).expanduser()
    if path.is_dir() and (path / "MLmodel").is_file():
        return _of_mlflow(uri, path, flavor=flavor, trust=trust, tracker=None)
    return Source(str(path.resolve()), path, check_kind(path, flavor=flavor, trust=trust), _digest(path))


def _downloaded(uri: str, tracker: Tracker, folder: Path) -> Path:
    assert tracker.client is not None  # sets the addresses that MLflow's own functions go to
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        path = Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise ImportRefused(
            f"{uri} cannot be fetched from MLflow ({tracker.settings.tracking_uri}): {error}. Wanted "
            "models:/<name>/<version>, "
            "models:/<name>@<alias>, models:/<model id> or runs:/<run>/<path>"
        ) from error
    if not (path / "MLmodel").is_file():
        raise ImportRefused(f"{uri} is no MLflow model: it has no file MLmodel")
    return path


def _of_mlflow(uri: str, folder: Path, *, flavor: str, trust: bool, tracker: Tracker | None) -> Source:
    try:
        model = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        flavors: Mapping[str, Mapping[str, Any]] = model["flavors"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ImportRefused(f"{uri}: its file MLmodel cannot be read ({error}): log the model again") from error
    known = next((name for name in _DATA_KEYS if name in flavors), None)
    if known is None:
        raise ImportRefused(
            f"{uri} is custom Python code (flavors: {', '.join(flavors)}; loader "
            f"{flavors.get('python_function', {}).get('loader_module', 'unknown')}), which has no graph to serve and "
            "is never "
            "run. Log the estimator inside it with its own flavor, or convert it to ONNX"
        )
    path = _data_file(uri, folder, known, flavors)
    try:
        kind = check_kind(path, flavor=flavor, trust=trust)
    except ImportRefused as error:  # the file is a copy in a temporary folder
        raise ImportRefused(str(error).replace(str(path), f"{uri} ({path.name})")) from error
    run_id = model.get("run_id")
    origin = _run(tracker, run_id) if tracker is not None and run_id else ""
    return Source(
        uri=uri,
        path=path,
        kind=kind,
        digest=_digest(path),
        inputs=_signature(uri, model.get("signature")),
        origin=origin or (f"MLflow run {run_id}" if run_id else ""),
        run_id=run_id,
    )


def _data_file(uri: str, folder: Path, flavor: str, flavors: Mapping[str, Mapping[str, Any]]) -> Path:
    names = [flavors[flavor][key] for key in _DATA_KEYS[flavor] if isinstance(flavors[flavor].get(key), str)]
    names += [flavors["python_function"]["data"]] if "data" in flavors.get("python_function", {}) else []
    root = folder.resolve()
    for name in names:
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise ImportRefused(f"{uri}: its file MLmodel names {name}, which is outside of the model's folder")
        inside = sorted(path.glob("model.*")) if path.is_dir() else [path]
        inside = [one for one in inside if one.is_file() and one.resolve().is_relative_to(root)]
        if inside:
            return inside[0]
    raise ImportRefused(f"{uri}: the file of its flavor {flavor} is missing ({', '.join(names) or 'none is named'})")


def _signature(uri: str, signature: Any) -> tuple[str, ...]:
    """Names of the columns in MLflow's signature; none of tensors, which have no columns."""
    if not isinstance(signature, Mapping) or not signature.get("inputs"):
        return ()
    try:
        columns = json.loads(signature["inputs"])
        return tuple(str(one["name"]) for one in columns if "name" in one and one.get("type") != "tensor")
    except (ValueError, TypeError) as error:
        raise ImportRefused(f"{uri}: its signature cannot be read ({error}): log the model again") from error


def _run(tracker: Tracker, run_id: str) -> str:
    """What the run says of the model's training, in words."""
    from mlflow.exceptions import MlflowException

    try:
        run = tracker.client.get_run(run_id)
    except MlflowException:
        return f"MLflow run {run_id}, which is gone"
    used = run.inputs.dataset_inputs if run.inputs else []
    data = ", ".join(f"{one.dataset.name} (digest {one.dataset.digest})" for one in used)
    by = run.data.tags.get("mlflow.user") or run.info.user_id or "unknown"
    return f"MLflow run {run_id} by {by}, data sets: {data or 'none were logged'}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
