"""Requests for predictions that are under way for as long as a test wants."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from http.client import HTTPConnection

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from ml_platform_tests.serving.on_ray import RayServer
from ml_platform_tests.serving.releases import MODEL, ROW

PATH = f"/predict/{MODEL}"
BODY = json.dumps(ROW).encode()
PATIENT = {"ML_PLATFORM_SERVING_BODY_SECONDS": "3600"}  # bodies end when a test lets them


class Held:
    """Requests whose bodies end only when they may; their answers are read meanwhile."""

    def __init__(self, url: str, threads: ThreadPoolExecutor) -> None:
        self._address = httpx.URL(url).netloc.decode()
        self._threads = threads
        self._asked: list[tuple[HTTPConnection, Future[httpx.Response]]] = []

    def ask(self, **headers: str) -> Future[httpx.Response]:
        connection = HTTPConnection(self._address, timeout=600)
        connection.putrequest("POST", PATH)
        for name, value in {"Content-Length": str(len(BODY)), **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(BODY[:20])
        future = self._threads.submit(_answer, connection)
        self._asked.append((connection, future))
        return future

    def end(self, future: Future[httpx.Response]) -> httpx.Response:
        """Let one request end, and give its answer."""
        [connection] = [connection for connection, other in self._asked if other is future]
        connection.send(BODY[20:])
        return future.result()

    def end_all(self) -> None:
        """Let the requests end that have not."""
        for connection, future in self._asked:
            if not future.done():
                connection.send(BODY[20:])
        while self._asked:
            connection, future = self._asked.pop()
            wait([future])
            connection.close()


def _answer(connection: HTTPConnection) -> httpx.Response:
    with connection.getresponse() as response:
        return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


@contextmanager
def held_at(server: RayServer, most: int) -> Iterator[Held]:
    """Ask for predictions, at most so many at once, that take as long as a test wants."""
    with ThreadPoolExecutor(most) as threads:
        held = Held(server.url, threads)
        try:
            yield held
        finally:
            held.end_all()


def under_way(server: RayServer) -> float:
    """Requests that replicas have begun, as these tell in the folder that they share."""
    [folder] = server.states_file.parent.glob("ml-platform-serving-*")
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry.get_sample_value("ml_platform_active_requests") or 0
