"""Translates a Parquet file into the body that `/predict/{model}` takes.

What the file's metadata says (rows, columns, sizes) is checked before anything is decompressed. A file may lie about
all of it, so it is decoded in a separate process (`inputs.parquet_worker`) with bounded memory and time.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_platform.registry.manifest import Input
from ml_platform.serving.http.messages import MAX_BODY_BYTES
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.request_decoder import MAX_ROWS
from ml_platform.serving.inputs.tabular_formats import body_of

MAX_FOOTER_BYTES = 2**20
MAX_ROW_GROUPS = 1_000
_MOST_LISTED = 10_000  # elements of one list in the footer
_MAGIC = b"PAR1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIMIT = f"{MAX_BODY_BYTES // 2**20} MiB"
_FEWER = "send fewer rows per request"
_WANTED = "texts, integers, numbers, booleans or timestamps"
# Physical and logical types of these; UNKNOWN is what a column of nulls is written as.
_TYPES = frozenset(
    {("BOOLEAN", "NONE"), ("FLOAT", "NONE"), ("DOUBLE", "NONE"), ("INT96", "NONE"), ("INT64", "TIMESTAMP")}
    | {(physical, logical) for physical in ("INT32", "INT64") for logical in ("NONE", "INT")}
    | {("BYTE_ARRAY", logical) for logical in ("STRING", "ENUM", "JSON")}
    | {("INT32", "UNKNOWN")}
)


def body_of_parquet(body: bytes, inputs: Sequence[Input], *, strict: bool = False) -> bytes:
    """Write the rows of a Parquet file as a body of `/predict/{model}`.

    Columns that are no inputs are not read; with `strict` they are refused. The others are texts, integers, numbers,
    booleans and timestamps; timestamps without offset count as UTC, NaN as null.
    The index that pandas adds to a file is not a column.

    Raises
    ------
    InvalidRequest
        400 when the file is damaged or not Parquet, 413 when it takes more than `MAX_BODY_BYTES` decoded, 422 when its
        columns do not fit the model's inputs.
    MemoryError
        When decoding takes more memory than the process may use.

    Examples
    --------
    >>> import io
    >>> import pyarrow as pa
    >>> import pyarrow.parquet as pq
    >>> file = io.BytesIO()
    >>> pq.write_table(pa.table({"a": pa.array([1, None]), "b": pa.array(["x", "y"])}), file)
    >>> fields = [Input(name="a", type="integer", required=False), Input(name="b", type="string")]
    >>> body_of_parquet(file.getvalue(), fields)
    b'{"rows":[{"a":1,"b":"x"},{"a":null,"b":"y"}]}'
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_frame(body)
    limits = {"thrift_string_size_limit": MAX_FOOTER_BYTES, "thrift_container_size_limit": _MOST_LISTED}
    options = {"pre_buffer": False, "coerce_int96_timestamp_unit": "us", "arrow_extensions_enabled": False, **limits}
    with _readable():
        metadata = pq.ParquetFile(pa.BufferReader(body), **options).metadata
        names = _check_columns(metadata.schema, inputs, strict=strict)
        count = _check_sizes(metadata)
        repeated = _repeated(metadata, names)
        file = pq.ParquetFile(pa.BufferReader(body), metadata=metadata, read_dictionary=repeated, **options)
    with _readable():
        table = file.read(columns=names, use_threads=False, use_pandas_metadata=False)
        table.validate(full=True)
    if table.num_rows != count or any(len(column) != count for column in table.columns):
        raise _damaged(f"its footer declares {count:,} rows, its columns hold another number")
    _check_texts(table)
    with _readable():
        columns = {name: _values(name, table.column(name)) for name in names}
    rows = zip(*columns.values(), strict=True) if columns else [()] * count
    written = body_of([dict(zip(columns, row, strict=True)) for row in rows], inputs)
    if len(written) > MAX_BODY_BYTES:
        raise _too_large(f"as JSON its rows take more than {_LIMIT}")
    return written


def _check_frame(body: bytes) -> None:
    """Refuse a body without Parquet's magic bytes, or with an impossible length of its footer."""
    if len(body) < 12 or body[:4] != _MAGIC or body[-4:] != _MAGIC:
        raise _damaged("it does not begin and end with PAR1; encrypted files are not read")
    (footer,) = struct.unpack("<I", body[-8:-4])
    if footer > len(body) - 12:
        raise _damaged("its footer is longer than the file")
    if footer > MAX_FOOTER_BYTES:
        raise _too_large(f"its footer takes {footer:,} bytes, more than {MAX_FOOTER_BYTES:,}")


def _check_columns(schema: Any, inputs: Sequence[Input], *, strict: bool) -> list[str]:
    """Names of the columns to read; refuses one that is nested or of an unsupported type, with `strict` others too."""
    known = {field.name for field in inputs}
    names: list[str] = []
    for number in range(len(schema)):
        column = schema.column(number)
        name = column.path
        if name.startswith("__index_level_") and name.endswith("__"):
            continue
        top = name if name == column.name else name.partition(".")[0]
        if not strict and top not in known:
            continue
        if column.max_repetition_level or column.max_definition_level > 1 or column.path != column.name:
            raise _invalid(column.path, "is nested: wanted a column of single values")
        if name not in known:
            raise _invalid(name, f"is not an input of this model; there are {', '.join(sorted(known))}"[:500])
        if name in names:
            raise _invalid(name, "appears twice")
        kind = column.logical_type.type
        if (column.physical_type, kind) not in _TYPES:
            stored_type = column.physical_type if kind == "NONE" else kind
            raise _invalid(name, f"is of type {stored_type}: wanted {_WANTED}")
        names.append(name)
    return names


def _check_sizes(metadata: Any) -> int:
    """Number of rows; refuses metadata that exceeds a limit or contradicts itself."""
    if metadata.num_row_groups > MAX_ROW_GROUPS:
        raise _too_large(f"it has {metadata.num_row_groups:,} row groups, more than {MAX_ROW_GROUPS:,}")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    count = sum(group.num_rows for group in groups)
    if count != metadata.num_rows or any(group.num_rows < 0 for group in groups):
        raise _damaged(f"its footer declares {metadata.num_rows:,} rows, its row groups {count:,}")
    if not 0 < count <= MAX_ROWS:
        wanted = f"at most {MAX_ROWS:,} rows" if count else "at least one row"
        raise _invalid("rows", f"wanted {wanted}, found {count:,}")
    size = 0
    for group in groups:
        for number in range(group.num_columns):
            chunk = group.column(number)
            if chunk.num_values != group.num_rows:
                raise _damaged(f"a column of {group.num_rows:,} rows has {chunk.num_values:,} values")
            if min(chunk.total_uncompressed_size, chunk.total_compressed_size) < 0:
                raise _damaged("a column has a size below 0")
            size += chunk.total_uncompressed_size
    if size > MAX_BODY_BYTES:
        raise _too_large(f"decompressed it takes {size:,} bytes, more than {_LIMIT}")
    return count


def _repeated(metadata: Any, names: Sequence[str]) -> list[str]:
    """Columns that are dictionary-encoded, and are read in that form: each distinct text is kept once."""
    first = metadata.row_group(0)
    chunks = {chunk.path_in_schema: chunk for chunk in map(first.column, range(first.num_columns))}
    return [
        name
        for name in names
        if name in chunks and any("DICTIONARY" in encoding for encoding in chunks[name].encodings)
    ]


def _check_texts(table: Any) -> None:
    """Refuse texts that are longer than a body may be, with each row's text counted in full."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = 0
    for chunk in (chunk for column in table.columns for chunk in column.chunks):
        if pa.types.is_dictionary(chunk.type):
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
        elif pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type):
            size += pc.sum(pc.binary_length(chunk)).as_py() or 0
    if size > MAX_BODY_BYTES:
        raise _too_large(f"its texts take {size:,} bytes, more than {_LIMIT}")


def _values(name: str, column: Any) -> list[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(column.type):
        micros = pc.CastOptions(pa.timestamp("us", column.type.tz), allow_time_truncate=True)
        rounded = pc.cast(column, options=micros)
        if column.type.unit == "ns" and pc.any(pc.not_equal(rounded.cast(column.type), column)).as_py():
            raise _invalid(name, "wanted timestamps in microseconds, found nanoseconds: round them")
        instants = rounded.cast(pa.int64()).to_pylist()
        try:
            return [None if instant is None else _EPOCH + timedelta(microseconds=instant) for instant in instants]
        except OverflowError as error:
            raise _invalid(name, "wanted timestamps of the years 1 to 9999") from error
    if pa.types.is_duration(column.type):
        raise _invalid(name, f"holds durations: wanted {_WANTED}")
    if pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py():
        raise _invalid(name, "wanted a number, found an infinite number")
    values: list[Any] = column.to_pylist()
    return values


@contextmanager
def _readable() -> Iterator[None]:
    """Turn Arrow's errors into refusals that blame the file."""
    from pyarrow import ArrowException

    try:
        yield
    except MemoryError:
        raise
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged((str(error).splitlines() or ["it cannot be read"])[0][:200]) from error


def _damaged(reason: str) -> InvalidRequest:
    return InvalidRequest(400, [Problem(None, None, f"the body is not a sound Parquet file: {reason}")])


def _too_large(reason: str) -> InvalidRequest:
    return InvalidRequest(413, [Problem(None, None, f"the Parquet file is too large: {reason}; {_FEWER}")])


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(422, [Problem(None, field[:100], message)])
