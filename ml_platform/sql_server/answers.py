"""Answers of queries: JSON in one piece, or a stream of Arrow batches, computed while they are sent."""

import asyncio
import io
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ml_platform.sql_server.limits import RunningQuery

if TYPE_CHECKING:
    import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"


def json_answer(frames: Iterator[pl.DataFrame], limit: int) -> tuple[bytes, int]:
    """The rows as JSON (`columns`, `rows`, `row_count`, `truncated`), and how many they are.

    Parameters
    ----------
    frames
        With up to one row more than the limit, which tells that there are more.
    limit
        Most rows of the answer.
    """
    rows = pl.concat(list(frames))
    shown = rows.head(limit)
    columns = [{"name": name, "type": str(dtype)} for name, dtype in shown.schema.items()]
    cells = [list(row.values()) for row in json.loads(_keyed(shown).write_json())]
    body = {"columns": columns, "rows": cells, "row_count": shown.height, "truncated": rows.height > limit}
    return json.dumps(body, ensure_ascii=False).encode(), shown.height


def _keyed(rows: pl.DataFrame) -> pl.DataFrame:
    # Names by position: JSON's objects would merge names that differ only for people.
    return rows.rename({name: str(number) for number, name in enumerate(rows.columns)})


class ArrowAnswer(Response):
    """A stream of record batches (Arrow's IPC stream), each sent before the next is computed.

    A client that goes away ends the query. An error after the first batch ends the connection before the stream's end
    mark, so that no client takes a part for the whole.
    """

    def __init__(self, frames: Iterator[pl.DataFrame], begun: Sequence[pl.DataFrame], query: RunningQuery) -> None:
        super().__init__(media_type=ARROW)
        del self.headers["content-length"]
        self._frames, self._begun, self._query = frames, begun, query
        self.rows = 0
        self.error: Exception | None = None

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        watch = asyncio.create_task(end_with_client(receive, self._query))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            pieces = self._pieces()
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:
            self.error = error
            raise
        finally:
            watch.cancel()

    def _pieces(self) -> Iterator[bytes]:
        import pyarrow.ipc

        sink = io.BytesIO()
        writer: Any = None
        for frame in (*self._begun, *self._frames):
            table: pa.Table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            if writer is None:
                writer = pyarrow.ipc.new_stream(sink, table.schema)
            if self._query.ended is not None:
                raise duckdb.InterruptException("ended")
            writer.write_table(table)
            self.rows += frame.height
            yield _taken(sink)
        if writer is not None:
            writer.close()
        yield _taken(sink)


def _taken(sink: io.BytesIO) -> bytes:
    piece = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return piece


async def end_with_client(receive: Receive, query: RunningQuery) -> None:
    """Wait until the client goes away, and interrupt its query then; to be cancelled when the answer is sent."""
    while (await receive())["type"] != "http.disconnect":
        pass
    query.end("disconnect")
