"""The ONNX graph as an MLflow model: signature, example and requirements given, nothing guessed or executed."""

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.registry.manifest import Manifest
from ml_platform.registry.tracking import Tracker

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


class SignatureLost(RuntimeError):
    """MLflow stored the model without its signature."""


def log_model(tracker: Tracker, run_id: str, onnx: bytes, manifest: Manifest, *, example: np.ndarray) -> str:
    """Log a graph under a run and return its MLflow URI.

    Parameters
    ----------
    tracker
        Where the run is.
    run_id
        Run that trained the model.
    onnx
        The serialised graph.
    manifest
        The bundle's; kept in the model's metadata by its digest.
    example
        Some rows (rows × features, float64) as input example.

    Raises
    ------
    SignatureLost
        When MLflow dropped the signature: the model could not be registered with one.
    """
    client = tracker.client  # sets tracking and registry addresses before MLflow's own functions are used
    import mlflow
    import onnx as onnx_library

    with mlflow.start_run(run_id=run_id):
        logged = mlflow.onnx.log_model(
            onnx_library.load_from_string(onnx),
            name="model",
            signature=_signature(manifest),
            input_example={"X": example[:3]},
            pip_requirements=[f"{name}=={version(name)}" for name in ("onnx", "onnxruntime", "numpy")],
            metadata={"model_digest": manifest.model_digest, "model": manifest.model},
            onnx_execution_providers=["CPUExecutionProvider"],
            onnx_session_options={"intra_op_num_threads": 1},
            save_as_external_data=False,
        )
    stored = mlflow.models.get_model_info(logged.model_uri)
    if stored.signature is None or stored.signature.inputs is None or stored.signature.outputs is None:
        raise SignatureLost(f"{manifest.model}: MLflow stored {logged.model_uri} without its signature; train again")
    client.log_batch(run_id, tags=[mlflow.entities.RunTag("model_uri", logged.model_uri)])
    return str(logged.model_uri)


def _signature(manifest: Manifest) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    double = np.dtype(np.float64)
    shape = (-1, len(manifest.classes)) if manifest.task == "multiclass" else (-1,)
    return ModelSignature(
        inputs=Schema([TensorSpec(double, (-1, len(manifest.features)), "X")]),
        outputs=Schema([TensorSpec(double, shape, "score")]),
    )
