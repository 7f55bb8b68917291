"""MLflow's server for the login gateway alone: an app of MLflow's own kind, by the entry point `mlflow.app`."""

from ml_platform.gateway_identity import GatewayOnly, GatewaySigner
from ml_platform.settings import Settings


def create_app() -> GatewayOnly:
    """Make the app: MLflow's, which answers to nobody but the gateway; `/health` alone is open."""
    from mlflow.server.fastapi_app import app

    return GatewayOnly(app, GatewaySigner(Settings().keys_dir), "mlflow", frozenset({"/health"}))
