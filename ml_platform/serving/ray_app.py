"""The app on Ray Serve: replicas are started and stopped with the load, each like a worker of the server.

`python -m ml_platform.serving.ray_app` is `serve run deploy/ray_serve.yaml` with this project's defaults. Ray is
imported inside functions only: the app itself knows nothing of it.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from logging.config import dictConfig
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_platform.distribution import ExtraMissing, extra
from ml_platform.local_ray import LOOPBACK, ray_session
from ml_platform.processes.stop_signals import stop_on_signals
from ml_platform.project import current_project
from ml_platform.serving.http.listener import CannotListen, listen
from ml_platform.serving.telemetry import logs

NAME = "serving"
FROM_REPLICA = "ml_platform.from_replica"  # a key of the message that starts a replica's answer
PROXY_SETTING = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # names what Serve puts around the app of each proxy
PROXY_CALLBACK = "ml_platform.serving.ray_proxy:middlewares"
_REQUEST_ID = b"x-request-id"


def default_config() -> Path:
    """The project's configuration file for Ray Serve."""
    return current_project().root / "deploy" / "ray_serve.yaml"


class Options(BaseModel):
    """The `args` of the application in the configuration file."""

    model_config = ConfigDict(extra="forbid")

    log_format: logs.LogFormat = Field("text", description="How log records are written to stderr.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log records that are written."
    )
    log_requests: Literal["none", "failed", "refused", "all"] = Field(
        "none", description="Requests that are logged: none, failed ones (5xx), refused ones (4xx) too, or all."
    )


def application(options: Options) -> Any:
    """Build what Ray Serve deploys: one deployment, whose replicas each make the app when they start.

    Returns
    -------
    ray.serve.Application
        Its deployment is named `serving`; the configuration file sets replicas, autoscaling and limits.
    """
    from ray import serve

    def create_app() -> ASGIApp:
        return replica_app(options)

    return serve.deployment(serve.ingress(create_app)(), name=NAME).bind()


def replica_app(options: Options) -> ASGIApp:
    """Make the app of one replica, which shares metrics and rate limits with the other replicas of its machine."""
    dictConfig(logs.log_config(options.log_format, options.log_level))
    os.environ[logs.SETTING] = options.log_requests
    from ray import serve

    _stay_on_loopback()
    share(_machine_folder(serve.get_replica_context().app_name))
    from ml_platform.serving import asgi  # only now: what it imports reads the environment

    return ReplicaAnswers(asgi.create_app())


def _stay_on_loopback() -> None:
    """On a Ray of one machine, open the replica's port for other deployments there only; Ray opens it on all addresses.

    Ray has no setting for it, and opens the port once the app is made.
    """
    import ray
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() != LOOPBACK:
        return
    open_port = replica.add_port_to_grpc_server

    def open_on_loopback(server: Any, address: str) -> int:
        port: int = open_port(server, address.replace("[::]", LOOPBACK))
        return port

    replica.add_port_to_grpc_server = open_on_loopback


class ReplicaAnswers:
    """Marks answers as a replica's for the proxy, and leaves the request id out, which the proxy adds itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and its answer back."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != _REQUEST_ID]
                message[FROM_REPLICA] = True
            await send(message)

        await self._app(scope, receive, marked if scope["type"] == "http" else send)


def share(folder: Path) -> None:
    """Share metrics and rate limits with all processes of a folder, until this process ends.

    Raises
    ------
    PermissionError
        If the folder is somebody else's.
    """
    from prometheus_client import multiprocess, values

    from ml_platform.serving.access.rate_limit import create_table
    from ml_platform.serving.telemetry.metrics import SHARED_FOLDER
    from ml_platform.serving.telemetry.worker_ids import take_number

    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"wanted {folder} to be this user's own, found another's: remove it")
    os.environ[SHARED_FOLDER] = str(folder)
    directory = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # replicas start together
        create_table(folder)
        number = take_number(folder)
        multiprocess.mark_process_dead(number)  # drops the gauges of the number's last holder; its counters go on
    finally:
        os.close(directory)
    values.ValueClass = values.MultiProcessValue(lambda: number)


def _machine_folder(application: str) -> Path:
    """The folder that replicas of an application share on this machine, for as long as its Ray runs."""
    import ray

    return Path(tempfile.gettempdir()) / f"ml-platform-{application}-{ray.get_runtime_context().get_node_id()}"


def main(arguments: list[str] | None = None) -> int:
    """Run a configuration file as `serve run` does, on the loopback address, until SIGTERM or Ctrl-C.

    Requests under way are answered first, which `serve run` does not do: it ends the proxies at once.
    """
    [config] = (sys.argv[1:] if arguments is None else arguments) or [str(default_config())]
    try:
        _check(Path(config))
    except (OSError, ValueError, CannotListen, ExtraMissing) as error:
        print(f"serving: {config}: {error}", file=sys.stderr)
        return 1
    os.environ.setdefault(PROXY_SETTING, PROXY_CALLBACK)
    with ray_session(namespace="serve"):  # where Serve looks for itself
        failed = _run(config)
    if failed:
        print("serving:", *failed, sep="\n", file=sys.stderr)
    return 1 if failed else 0


def _run(config: str) -> list[str]:
    """Deploy a configuration file on the Ray of this process and end it when asked to; what failed to deploy."""
    from ray import serve
    from ray.serve.scripts import cli

    failed: list[str] = []
    is_deploying = True
    with stop_on_signals() as stopped:
        cli(["run", "--non-blocking", config], standalone_mode=False)
        while is_deploying and not stopped.wait(0.5):
            applications = serve.status().applications
            failed = [f"{name}: {one.message}" for name, one in applications.items() if one.status == "DEPLOY_FAILED"]
            is_deploying = not failed and {one.status for one in applications.values()} != {"RUNNING"}
        if not failed:
            stopped.wait()
    deployed = list(serve.status().applications)
    for name in deployed:
        serve.delete(name)
    serve.shutdown()
    for folder in map(_machine_folder, deployed):
        if folder.exists():
            shutil.rmtree(folder)
    return failed


def _check(config: Path) -> None:
    """Check the configuration and the port before Ray starts (raises OSError, ValueError, CannotListen)."""
    if os.environ.get("RAY_ADDRESS"):
        raise ValueError("RAY_ADDRESS names a cluster, which outlives this process: use `serve deploy` there")
    import yaml

    with extra("ray-serve"):
        from ray.serve.schema import ServeDeploySchema

    try:
        schema = ServeDeploySchema.model_validate(yaml.safe_load(config.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"this is no YAML: {error}") from error
    listen(schema.http_options.host, schema.http_options.port, "`http_options`").close()


if __name__ == "__main__":
    sys.exit(main())
