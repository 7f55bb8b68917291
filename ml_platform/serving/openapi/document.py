"""The whole OpenAPI document: the app's own routes, those of the other protocols, and what holds for all of them."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from ml_platform.features.online.store import Definition
from ml_platform.registry.feature_services import FeatureService
from ml_platform.serving.http.messages import encode
from ml_platform.serving.models.slots import EndpointState, ServingState
from ml_platform.serving.openapi.access import with_access
from ml_platform.serving.openapi.databricks import with_databricks
from ml_platform.serving.openapi.endpoints import with_endpoints
from ml_platform.serving.openapi.lookups import with_lookups
from ml_platform.serving.openapi.mlflow import with_mlflow
from ml_platform.serving.openapi.open_inference import with_oip
from ml_platform.serving.openapi.predictions import openapi_document
from ml_platform.serving.openapi.pushes import with_pushes
from ml_platform.serving.openapi.versions import with_versions

_TAGS = {
    "predict": "Predictions, with all options; the other protocols offer fewer.",
    "models": "What is released.",
    "catalogue": "Everything that there is: tables, features, models, endpoints, notebooks, terms.",
    "audit": "Who read what, for those who manage it.",
    "features": "The newest values of views and feature services; and rows pushed into views.",
    "endpoints": "Which versions answer, and their shares of the traffic.",
    "MLflow": "The same models, as clients of `mlflow models serve` ask for them.",
    "Databricks model serving": "The same models and endpoints, for `databricks-sdk` and `mlflow.deployments`.",
    "Feast": "The same features, as clients of Feast's feature server ask for them.",
    "Open Inference Protocol": "The same models by tensors, version 2 over HTTP.",
    "health": "Whether it answers, and how it is doing.",
}


class WrittenDocument:
    """The document as text, written again only when what serves has changed: of 200 models it takes half a second."""

    def __init__(self, app: FastAPI, state: ServingState) -> None:
        self._app = app
        self._state = state
        self._written: (
            tuple[dict[str, EndpointState], Mapping[str, Definition], Mapping[str, FeatureService], bytes] | None
        ) = None

    def text(self) -> bytes:
        """Give the document in JSON; call it from a thread."""
        written, slots, views, services = self._written, self._state.slots, self._state.views, self._state.services
        if written is None or written[0] is not slots or written[1] != views or written[2] != services:
            # What was replaced meanwhile may be in it already; the next call notices, and writes it again.
            written = self._written = (slots, views, services, encode(whole_document(self._app, self._state)))
        return written[3]


def whole_document(app: FastAPI, state: ServingState) -> dict[str, Any]:
    """Write the document for what serves now."""
    document = with_pushes(openapi_document(app, state), state.views)
    for add in (with_lookups, with_endpoints, with_versions, with_mlflow, with_databricks, with_oip):
        document = add(document, state)
    document["tags"] = [{"name": name, "description": about} for name, about in _TAGS.items()]
    return with_access(document)
