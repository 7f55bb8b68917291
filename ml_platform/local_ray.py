"""A Ray of this process's own: on the loopback address only, without telemetry, and patient on a busy machine.

Ray's own deadlines suit an idle machine; where a helper misses one, the whole start fails. What Ray reads from the
environment is set here, before Ray is imported; what is set already stays.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
AGENT_PORTS: Final = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)
_ENVIRONMENT: Final = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else it takes the machine's outer address and listens on all
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_py_gcs_connect_timeout_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_raylet_start_wait_time_s": "120",  # also the time until a raylet that died is noticed
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300",  # a proxy that takes longer is replaced and starts all over
}

if not os.environ.get("RAY_ADDRESS"):
    for _name, _value in _ENVIRONMENT.items():
        os.environ.setdefault(_name, _value)


@contextmanager
def ray_session(**options: Any) -> Iterator[None]:
    """Connect to the cluster in `RAY_ADDRESS`, or start a Ray on the loopback address only; end what began here.

    A Ray that is started has no dashboard, reports no usage and does not wait for its agents, however late they are.

    Parameters
    ----------
    options
        Further options of `ray.init`, in both cases.
    """
    import ray

    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**options)
        else:
            ports = stack.enter_context(_reserved_ports(len(AGENT_PORTS)))
            with _known_to_raylet(dict(zip(AGENT_PORTS, ports, strict=True))):
                ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, **options)
        yield


@contextmanager
def _reserved_ports(count: int) -> Iterator[list[int]]:
    """Ports of the loopback address that the system hands out to nobody else before Ray's agents listen on them.

    A socket that is bound and does not listen keeps its port from being handed out, and lets those bind it that ask for
    it by number and with SO_REUSEADDR, as the agents do.
    """
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            reserved = stack.enter_context(socket.socket())
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind((LOOPBACK, 0))
            ports.append(reserved.getsockname()[1])
        yield ports


@contextmanager
def _known_to_raylet(ports: dict[str, int]) -> Iterator[None]:
    """Let `ray.init` tell the raylet on which ports its agents listen.

    A raylet that does not know them waits for each agent to write its port into a file, for 15 seconds that no setting
    changes, and then aborts (https://github.com/ray-project/ray/issues/65983). `ray.init` has no parameters for the
    ports. `ray start` has, and still gives the raylet only three of the four.
    """
    from ray._private import parameter, ray_constants, services

    plain_params, plain_start = parameter.RayParams, services.start_ray_process

    class Params(plain_params):  # type: ignore[misc, valid-type]
        def __init__(self, **given: Any) -> None:
            super().__init__(**{**given, **ports})

    def start_process(command: list[str], kind: str, *arguments: Any, **options: Any) -> Any:
        if kind == ray_constants.PROCESS_TYPE_RAYLET:
            command = [*command, f"--dashboard_agent_listen_port={ports['dashboard_agent_listen_port']}"]
        return plain_start(command, kind, *arguments, **options)

    parameter.RayParams, services.start_ray_process = Params, start_process
    try:
        yield
    finally:
        parameter.RayParams, services.start_ray_process = plain_params, plain_start
