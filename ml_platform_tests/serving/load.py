"""Clients that ask a server without end while a test does something to it."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW, score

_ROWS = [{**ROW, "distance": distance} for distance in (200, 1400, 2500)]


@contextmanager
def clients(number: int, work: Callable[[int, threading.Event], None]) -> Iterator[None]:
    """Let clients, told their number and what tells them to end, work until the block ends; raises what they raised."""
    ended = threading.Event()
    with ThreadPoolExecutor(number) as threads:
        working = [threads.submit(work, client, ended) for client in range(number)]
        try:
            yield
        finally:
            ended.set()
    for done in working:
        done.result()


@contextmanager
def judged(server: Server, versions: Iterable[int]) -> Iterator[list[int]]:
    """Let three clients ask until the block ends: no request may fail, no answer be wrong; gives who answered."""
    wanted = {
        (version, row["distance"]): pytest.approx(score(version, row), abs=1e-12)
        for version in versions
        for row in _ROWS
    }
    wrong: list[Any] = []
    seen: list[int] = []

    def ask(client: httpx.Client, row: dict[str, Any]) -> None:
        answer = client.post(f"/predict/{MODEL}", json=row)
        if answer.status_code != 200:
            wrong.append(answer.text)
            return
        body = answer.json()
        seen.append(body["version"])
        if body["predictions"][0]["probability"] != wanted[body["version"], row["distance"]]:
            wrong.append(body)

    def work(number: int, ended: threading.Event) -> None:
        asked = 0
        while not ended.is_set():
            with httpx.Client(base_url=server.url, timeout=60) as client:  # a new connection may reach either worker
                for _ in range(20):
                    asked += 1
                    ask(client, {**_ROWS[number], "flight_id": f"flight {asked}"})

    with clients(len(_ROWS), work):
        yield seen
    assert wrong == []


def is_seen(version: int, seen: list[int], since: int, _client: httpx.Client) -> bool:
    """Whether a version has answered after the first so many requests."""
    return version in seen[since:]
