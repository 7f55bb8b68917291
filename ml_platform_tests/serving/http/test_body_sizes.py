"""A body past the limit is refused at once when all of it has arrived, and read past when more of it is to come."""

import asyncio
import gzip
from collections.abc import Sequence
from time import perf_counter

import pytest
from starlette.types import Message

from ml_platform.serving.http.compression import decompress
from ml_platform.serving.http.messages import MAX_BODY_BYTES, BodyReader, Refused

HALF = b" " * (MAX_BODY_BYTES // 2 + 1)


def refused_after(messages: Sequence[Message]) -> Refused:
    """Read the messages of a body that is too large; asking for another one than these fails."""
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting)

    async def read() -> bytes:
        return await BodyReader(60).read(receive, perf_counter())

    with pytest.raises(Refused) as refused:
        asyncio.run(read())
    return refused.value


def part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("more", [True, False])
def test_what_has_not_arrived_of_a_large_body_is_read_past(more: bool) -> None:
    refused = refused_after([part(HALF, more=True), part(HALF, more=more)])
    assert (refused.status, refused.close, refused.drain) == (413, True, more)


def test_a_large_body_in_one_message_has_arrived() -> None:
    refused = refused_after([part(HALF * 2, more=False)])
    assert (refused.status, refused.drain) == (413, False)


def test_a_body_that_would_be_too_large_decompressed_has_arrived() -> None:
    with pytest.raises(Refused) as refused:
        decompress(gzip.compress(bytes(MAX_BODY_BYTES + 1)), b"gzip")
    assert (refused.value.status, refused.value.drain) == (413, False)
