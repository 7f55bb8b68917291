"""What reading from and writing to Redis Streams have in common: a client, ids as positions, errors in our terms."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ml_platform.distribution import extra
from ml_platform.spec.stream_sources import RedisSource
from ml_platform.streams.environment_variables import expanded
from ml_platform.streams.protocols import StreamMisfit, StreamUnavailable

if TYPE_CHECKING:
    from redis import Redis

ANSWER_SECONDS = 10.0  # in which a server that is up answers
_SEQUENCE_BITS = 20  # of a position: a million entries in one millisecond


def open_client(source: RedisSource) -> "Redis":
    """A client of the source's server; it connects when it is used (raises StreamMisfit)."""
    with extra("serving"):
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

    try:
        return redis.Redis.from_url(
            expanded(source.url, "url"),
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),  # a repeated write would be written twice
            health_check_interval=0,
        )
    except ValueError as error:
        raise StreamMisfit(f"stream.source: url: {error}") from error


def keys_of(source: RedisSource) -> list[str]:
    """Keys of the stream's partitions, by their numbers."""
    return [partition_key(source, source.stream, number) for number in range(source.partitions)]


def partition_key(source: RedisSource, name: str, partition: int) -> str:
    """Key of one partition of a stream that is divided as the source is.

    Examples
    --------
    >>> one = RedisSource(type="redis", url="redis://127.0.0.1", stream="flights")
    >>> partition_key(one, "answers", 0), partition_key(one.model_copy(update={"partitions": 2}), "answers", 1)
    ('answers', 'answers.1')
    """
    return name if source.partitions == 1 else f"{name}.{partition}"


def position_of(identity: bytes) -> int:
    """The position of an entry, by its id.

    Raises
    ------
    StreamMisfit
        When the id is none that Redis gives by itself at any rate of entries.

    Examples
    --------
    >>> position_of(b"1764590000000-3"), identity_of(position_of(b"1764590000000-3"))
    (1850306723840000003, '1764590000000-3')
    """
    milliseconds, _, sequence = identity.partition(b"-")
    number = int(sequence)
    if number >> _SEQUENCE_BITS or int(milliseconds) >> (63 - _SEQUENCE_BITS):
        raise StreamMisfit(
            f"entry {identity.decode()}: wanted an id of milliseconds and less than a million behind '-'"
        )
    return (int(milliseconds) << _SEQUENCE_BITS) | number


def identity_of(position: int) -> str:
    """The id of the entry that has a position."""
    return f"{position >> _SEQUENCE_BITS}-{position & (2**_SEQUENCE_BITS - 1)}"


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn the client's errors into those of `streams.protocols`."""
    import redis.exceptions as errors

    try:
        yield
    except (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError) as error:
        raise StreamMisfit(f"Redis refuses the credentials: {error}") from error
    except (errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError, errors.OutOfMemoryError) as error:
        raise StreamUnavailable(f"Redis does not answer as it should: {error}") from error
    except errors.ResponseError as error:
        raise StreamMisfit(f"Redis refuses: {error}") from error


def stream_facts(client: "Redis", key: str) -> dict[str, Any] | None:
    """What Redis says of a stream; None when there is none (raises StreamUnavailable, StreamMisfit)."""
    with redis_errors():
        if not client.exists(key):
            return None
        facts: dict[str, Any] = client.xinfo_stream(key)
    return facts
