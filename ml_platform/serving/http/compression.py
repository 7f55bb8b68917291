"""Decompresses bodies, within the limit of every body: a small one that would become huge is refused, not unpacked."""

import asyncio
import zlib

from ml_platform.serving.http.messages import MAX_BODY_BYTES, Refused, too_large

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


async def plain_body(body: bytes, encoding: bytes) -> bytes:
    """Give a body as it was before its `Content-Encoding` (empty for none), worked out in a thread.

    Raises
    ------
    Refused
        413 when it is larger than `MAX_BODY_BYTES` decompressed, 400 when it cannot be decompressed.
    """
    return body if not encoding else await asyncio.to_thread(decompress, body, encoding)


def decompress(body: bytes, encoding: bytes) -> bytes:
    """Decompress a body (raises Refused).

    Examples
    --------
    >>> decompress(zlib.compress(b"text"), b"deflate")
    b'text'
    """
    decompressor = zlib.decompressobj(_format(body, encoding))
    try:
        plain = decompressor.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise _damaged(encoding) from error
    if len(plain) > MAX_BODY_BYTES:
        raise too_large(drain=False)
    if not decompressor.eof or decompressor.unused_data:  # cut off, or followed by something else
        raise _damaged(encoding)
    return plain


def _format(body: bytes, encoding: bytes) -> int:
    """zlib's number of a format; what is called deflate is meant to be zlib's own, but some clients send it bare."""
    if encoding != b"deflate":
        return _GZIP
    has_header = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    return _ZLIB if has_header else _RAW


def _damaged(encoding: bytes) -> Refused:
    message = f"the body cannot be decompressed: wanted one {encoding.decode()} stream, whole and with nothing after it"
    return Refused(400, "invalid_encoding", message)
