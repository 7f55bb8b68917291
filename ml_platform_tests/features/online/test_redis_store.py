"""What is Redis' own: round trips, tidying, chunks, a server that is not there."""

import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import redis

from ml_platform.features.online.open import open_online_store

NOON = datetime(2013, 7, 4, 12, tzinfo=UTC)


def frame(first: int, last: int, value: float, at: datetime = NOON) -> pl.DataFrame:
    return pl.DataFrame({"key": range(first, last)}).with_columns(
        event_time=pl.lit(at).dt.cast_time_unit("us"), value=value
    )


@pytest.fixture
def client(redis_uri: str):
    with redis.Redis.from_url(redis_uri) as opened:
        yield opened


def rows_kept(client: redis.Redis) -> int:
    return sum(1 for _ in client.scan_iter(match=b"*:row:*", count=1000))


def calls(client: redis.Redis) -> int:
    return client.info("stats")["total_commands_processed"]


def test_a_read_over_several_views_is_one_command(redis_uri, client):
    with open_online_store(redis_uri) as store:
        for view in ("a", "b", "c"):
            store.write(view, ("key",), frame(0, 200, 1.0))
        wanted = [(view, (n,)) for view in ("a", "b", "c") for n in range(100)]
        store.read(wanted)
        before = calls(client)
        assert all(row is not None for row in store.read(wanted))
        assert calls(client) - before == 2, "the MGET, and the INFO that counts"


def test_many_rows_are_written_in_few_calls_and_merged_by_time(redis_uri, client):
    with open_online_store(redis_uri) as store:
        before = calls(client)
        assert store.write("v", ("key",), frame(0, 7000, 1.0)) == 7000
        assert calls(client) - before < 40
        assert store.write("v", ("key",), frame(5000, 9000, 2.0, NOON - timedelta(days=1))) == 2000
        assert store.write("v", ("key",), frame(6000, 9000, 3.0)) == 3000
        found = [row and row.values["value"] for row in store.read([("v", (n,)) for n in (0, 5500, 6500, 8500)])]
        assert found == [1.0, 1.0, 3.0, 3.0]


def test_rows_of_replaced_definitions_are_deleted(redis_uri, client):
    with open_online_store(redis_uri) as store:
        for n in range(3):
            store.write("v", ("key",), frame(0, 3000, 1.0), view_hash=str(n))
        assert rows_kept(client) == 3000


def test_what_a_killed_writer_left_is_deleted_but_not_what_one_is_writing(redis_uri, client):
    client.set(b"ml_platform:online:row:777:x", b"left")
    client.set(b"ml_platform:online:row:778:x", b"being written")
    client.zadd(b"ml_platform:online:stale", {"777": time.time() - 7200, "778": time.time()})
    with open_online_store(redis_uri) as store:
        store.write("v", ("key",), frame(0, 1, 1.0))
    assert not client.exists(b"ml_platform:online:row:777:x")
    assert client.exists(b"ml_platform:online:row:778:x")


def test_a_writer_overtaken_by_a_new_definition_writes_anew(redis_uri):
    """Two writers take turns with their own definitions: the last one's is in force, whole and alone."""
    with open_online_store(redis_uri) as one, open_online_store(redis_uri) as two:
        one.write("v", ("key",), frame(0, 10, 1.0), view_hash="one")
        two.write("v", ("key",), frame(5, 10, 2.0, NOON - timedelta(days=1)), view_hash="two")
        assert one.write("v", ("key",), frame(0, 3, 3.0), view_hash="one") == 3
        for store in (one, two):
            assert [row and row.values["value"] for row in store.read([("v", (n,)) for n in (0, 5)])] == [3.0, None]


def test_a_reader_whose_connection_was_cut_connects_again(redis_uri, client):
    with open_online_store(redis_uri) as store:
        store.write("v", ("key",), frame(0, 3, 1.0))
        for _ in range(3):
            assert [row and row.values for row in store.read([("v", (2,)), ("v", (3,))])] == [{"value": 1.0}, None]
            assert client.client_kill_filter(_type="normal", skipme=True) >= 1


def test_a_server_that_is_not_there_is_said():
    with (
        open_online_store("redis://127.0.0.1:1/0") as store,
        pytest.raises(redis.ConnectionError, match=r"127\.0\.0\.1:1"),
    ):
        store.read([("v", (1,))])
