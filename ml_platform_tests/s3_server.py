"""An S3 server for tests, for a process of its own: `python -m ml_platform_tests.s3_server` prints its address."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def one_at_a_time(application: Application) -> Application:
    """Answer one request after the other.

    For a conditional PUT, moto first looks whether the key is there, and then writes it. Between these, another thread
    can do the same: then two writers are told that they made one version of a table, and the rows of one are lost.
    """
    lock = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with lock:
            return application(environ, start_response)

    return answer


def main() -> None:
    """Serve on a port that the system chooses, until the process is ended."""
    application = one_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
