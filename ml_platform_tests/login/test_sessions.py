"""When sessions end, and how often one may try."""

import threading

import pytest

from ml_platform.login import sessions as module
from ml_platform.login.sessions import MOST, WINDOW_SECONDS, SessionStore


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def store(tmp_path):
    return SessionStore(tmp_path, idle_seconds=600, lasting_seconds=3600)


def begin(store, name="ada"):
    return store.begin(name, source="account", stamp="1", address="127.0.0.1")


def test_a_session_ends_when_it_is_not_used(store, clock):
    secret = begin(store)
    for _ in range(5):
        clock.now += 500
        assert store.find(secret) is not None
    clock.now += 601
    assert store.find(secret) is None
    assert store.sessions() == []


def test_a_session_ends_at_the_latest_however_much_it_is_used(store, clock):
    secret = begin(store)
    for _ in range(7):
        clock.now += 500
        store.find(secret)
    clock.now += 101
    assert store.find(secret) is None


def test_what_is_stored_opens_nothing(store):
    secret = begin(store)
    [session] = store.sessions()
    assert secret.encode() not in store.path.read_bytes()
    assert store.find(session.digest) is None


def test_sessions_end_for_all_who_share_the_store(store, tmp_path):
    other = SessionStore(tmp_path, idle_seconds=600, lasting_seconds=3600)
    first, second, eves = begin(store), begin(store), begin(store, "eve")
    assert other.end_all("ada") == 2
    assert (store.find(first), store.find(second)) == (None, None)
    assert store.find(eves) is not None


def test_too_many_attempts_wait_and_a_right_one_starts_anew(store, clock):
    most = MOST["name and address"]
    assert [store.try_attempt("ada", "10.0.0.1") for _ in range(most)] == [0.0] * most
    assert 0 < store.try_attempt("ada", "10.0.0.1") <= WINDOW_SECONDS
    assert store.try_attempt("ADA", "10.0.0.1") > 0
    assert store.try_attempt("ada", "10.0.0.2") == 0, "whoever guesses locks nobody out who is elsewhere"
    assert store.try_attempt("eve", "10.0.0.1") == 0
    store.succeeded("ada", "10.0.0.1")
    assert store.try_attempt("ada", "10.0.0.1") == 0
    clock.now += WINDOW_SECONDS + 1
    assert [store.try_attempt("ada", "10.0.0.1") for _ in range(most)] == [0.0] * most


def test_many_names_from_one_address_and_one_name_from_many_wait(store, clock):
    most = MOST["address"]
    assert [store.try_attempt(f"n{n}", "10.0.0.9") for n in range(most)] == [0.0] * most
    assert store.try_attempt("another", "10.0.0.9") > 0
    most = MOST["name"]
    assert [store.try_attempt("root", f"10.1.{n}.1") for n in range(most)] == [0.0] * most
    assert store.try_attempt("root", "10.2.0.1") > 0


def test_the_addresses_of_one_network_of_ipv6_are_one(store, clock):
    for n in range(MOST["name and address"]):
        assert store.try_attempt("ada", f"2001:db8::{n:x}") == 0
    assert store.try_attempt("ada", "2001:db8::ffff") > 0
    assert store.try_attempt("ada", "2001:db8:1::1") == 0


def test_attempts_at_once_are_all_counted(store):
    waits: list[float] = []

    def attempt():
        waits.append(store.try_attempt("ada", "10.0.0.1"))

    threads = [threading.Thread(target=attempt) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wait == 0 for wait in waits) == MOST["name and address"]


def test_what_waits_for_the_provider_is_given_once_and_not_late(store, clock):
    store.put_pending("a", {"nonce": "1"}, 600)
    assert store.take_pending("a") == {"nonce": "1"}
    assert store.take_pending("a") is None
    store.put_pending("b", {"nonce": "2"}, 600)
    clock.now += 601
    assert store.take_pending("b") is None
