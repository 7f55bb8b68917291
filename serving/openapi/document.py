"""The whole OpenAPI document: the app's own routes, those of the other protocols, and what holds for all of them."""

from typing import Any

from fastapi import FastAPI

from serving.openapi.access import with_access
from serving.openapi.databricks import with_databricks
from serving.openapi.endpoints import with_endpoints
from serving.openapi.mlflow import with_mlflow
from serving.openapi.open_inference import with_oip
from serving.openapi.predictions import openapi_document
from serving.openapi.pushes import with_pushes
from serving.state import ServingState

_TAGS = {
    "predict": "Predictions, with all options; the other protocols offer fewer.",
    "models": "What is released.",
    "features": "Rows pushed into feature views between their computations.",
    "endpoints": "Which versions answer, and their shares of the traffic.",
    "MLflow": "The same models, as clients of `mlflow models serve` ask for them.",
    "Databricks model serving": "The same models and endpoints, for `databricks-sdk` and `mlflow.deployments`.",
    "Open Inference Protocol": "The same models by tensors, version 2 over HTTP.",
    "health": "Whether it answers, and how it is doing.",
}


def whole_document(app: FastAPI, state: ServingState) -> dict[str, Any]:
    """Write the document for what serves now."""
    document = with_pushes(openapi_document(app, state), state.views)
    for add in (with_endpoints, with_mlflow, with_databricks, with_oip):
        document = add(document, state)
    document["tags"] = [{"name": name, "description": about} for name, about in _TAGS.items()]
    return with_access(document)
