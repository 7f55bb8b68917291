"""The binary data extension of the Open Inference Protocol: tensors as bytes behind the JSON of a request or answer.

It is what `tritonclient` speaks unless told otherwise. Numbers are little-endian, a BYTES element is its length in four
bytes and its UTF-8 text. The header `Inference-Header-Content-Length` says where the JSON ends.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ml_platform.serving.inputs.request_decoder import MAX_ROWS

HEADER = "Inference-Header-Content-Length"
SIZE = "binary_data_size"  # a tensor's parameter
DTYPES = {
    "BOOL": "?",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_LENGTH = struct.Struct("<I")


def split_body(body: bytes, header: str | None) -> tuple[bytes, memoryview]:
    """Split a body into its JSON and its tensors' bytes; all of it is JSON without the header.

    Raises
    ------
    ValueError
        When the header is not the length of a part of the body.
    """
    if header is None:
        return body, memoryview(b"")
    if not (header.isascii() and header.isdigit() and len(header) < 10 and int(header) <= len(body)):
        raise ValueError(f"wanted {HEADER} to be the length of the body's JSON, at most {len(body):,}")
    return body[: int(header)], memoryview(body)[int(header) :]


def decode_tensor(datatype: str, data: memoryview) -> list[Any]:
    """Read the elements of a tensor; NaN, the only missing value that numbers have here, is None.

    Raises
    ------
    ValueError
        When the bytes are not whole elements, a text is not UTF-8, or a number is infinite.

    Examples
    --------
    >>> decode_tensor("BYTES", memoryview(b"\\x02\\0\\0\\0UA")), decode_tensor("FP32", memoryview(b"\\0\\0\\0?"))
    (['UA'], [0.5])
    """
    if datatype == "BYTES":
        return _decode_texts(data)
    dtype = np.dtype(DTYPES[datatype])
    if len(data) % dtype.itemsize:
        raise ValueError(f"wanted whole elements of {dtype.itemsize} bytes, found {len(data):,} bytes")
    numbers = np.frombuffer(data, dtype)
    if dtype.kind == "b":
        return np.frombuffer(data, np.uint8).astype(bool).tolist()  # any other byte than 0 is true
    if dtype.kind != "f":
        return numbers.tolist()
    if np.isinf(numbers).any():
        raise ValueError("wanted finite numbers, found an infinite number")
    return [None if number != number else number for number in numbers.tolist()]  # noqa: PLR0124 - NaN


def encode_tensor(datatype: str, values: Sequence[Any]) -> bytes:
    """Write the elements of a tensor.

    Examples
    --------
    >>> encode_tensor("BYTES", ["UA"]), encode_tensor("BOOL", [True])
    (b'\\x02\\x00\\x00\\x00UA', b'\\x01')
    """
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    return np.array(values, DTYPES[datatype]).tobytes()


def _decode_texts(data: memoryview) -> list[str]:
    texts: list[str] = []
    position = 0
    while position < len(data):
        if len(texts) > MAX_ROWS:
            raise ValueError(f"wanted at most {MAX_ROWS:,} rows")
        start = position + _LENGTH.size
        if start > len(data) or (end := start + _LENGTH.unpack_from(data, position)[0]) > len(data):
            raise ValueError("its last element is cut off")
        texts.append(str(data[start:end], "utf-8"))
        position = end
    return texts
