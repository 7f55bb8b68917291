"""Parquet bodies: as pandas, Polars and Arrow write them, and as nobody should."""

import asyncio
import io
import random
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.serving.http.messages import Refused
from ml_platform.serving.inputs.parquet_worker import EXTRA_BYTES, ParquetProcess
from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.protocols.two_rows import MLFLOW_PATHS, ROWS
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, fill_online_store, publish

HEADERS = {"Content-Type": "application/vnd.apache.parquet"}
INSTANTS = ("scheduled_departure", "scheduled_arrival")
TYPED = [{**row, **{name: datetime.fromisoformat(row[name]) for name in INSTANTS}} for row in ROWS]
WORKER_BYTES = 150 * 2**20
CHILD_BYTES = 100 * 2**20 + EXTRA_BYTES


def written(write: Callable[[io.BytesIO], Any]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def of(table: Any, **options: Any) -> bytes:
    return written(lambda file: pq.write_table(table, file, **options))


def column(name: str, values: Any, **options: Any) -> bytes:
    """A file of one column."""
    return of(pa.table({name: values}), **options)


def with_pandas(**options: Any) -> bytes:
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    for name in INSTANTS:
        frame[name] = pd.to_datetime(frame[name]).dt.tz_localize(None)  # without offset, as Parquet often has them
    return written(lambda file: frame.to_parquet(file, **options))


def sorted_by_pandas() -> bytes:
    """With an index that is no range, which pandas writes as a column."""
    import pandas as pd

    return written(pd.DataFrame(ROWS[::-1], index=[7, 3]).sort_index().to_parquet)


TABLE = pa.Table.from_pylist(TYPED)
DELTA = {
    **dict.fromkeys(INSTANTS, "DELTA_BINARY_PACKED"),
    "carrier": "DELTA_BYTE_ARRAY",
    "distance": "BYTE_STREAM_SPLIT",
}
FILES: dict[str, Callable[[], bytes]] = {
    "pandas": with_pandas,
    "pandas, gzip": lambda: with_pandas(compression="gzip"),
    "pandas, brotli": lambda: with_pandas(compression="brotli"),
    "pandas with an index": sorted_by_pandas,
    "polars": lambda: written(pl.DataFrame(TYPED).write_parquet),
    "polars, texts of instants": lambda: written(pl.DataFrame(ROWS).write_parquet),
    "polars, categories": lambda: written(pl.DataFrame(TYPED).cast({"carrier": pl.Categorical}).write_parquet),
    "arrow": lambda: of(TABLE),
    "arrow, row groups": lambda: of(TABLE, row_group_size=1),
    "arrow, pages of version 2": lambda: of(TABLE, data_page_version="2.0", compression="zstd"),
    "arrow, other encodings": lambda: of(TABLE, use_dictionary=False, column_encoding=DELTA),
    "spark's instants": lambda: of(TABLE, use_deprecated_int96_timestamps=True),
    "nothing of arrow's": lambda: of(TABLE, store_schema=False, compression="none", use_dictionary=False),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("path", MLFLOW_PATHS)
def test_a_file_gets_the_predictions_of_our_own_route(
    client: httpx.Client, wanted: list[dict[str, Any]], path: str, kind: str
) -> None:
    answer = client.post(path, content=FILES[kind](), headers=HEADERS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["probabilities"] == [prediction["probability"] for prediction in wanted]


def test_many_rows_and_nulls(server: Server) -> None:
    rows = [{**row, "flight_id": f"{number}", "tailnum": None} for number in range(2_500) for row in TYPED * 2]
    answer = server.client.post("/invocations", content=of(pa.Table.from_pylist(rows)), headers=HEADERS)
    assert (answer.status_code, len(answer.json()["predictions"])) == (200, 10_000)
    assert psutil.Process(server.process.pid).memory_info().rss < WORKER_BYTES
    assert "pyarrow" not in Path(f"/proc/{server.process.pid}/maps").read_text()


NONE = pa.array([None], pa.string())
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "begin and end with PAR1"),
    "no magic": (lambda: b"PAR2" + of(TABLE)[4:], "begin and end with PAR1"),
    "encrypted": (lambda: b"PARE" + of(TABLE)[4:-4] + b"PARE", "encrypted"),
    "magic alone": (lambda: b"PAR1PAR1", "begin and end with PAR1"),
    "a footer that is no footer": (lambda: b"PAR1" + bytes(100) + b"\x20\0\0\0PAR1", "not a sound Parquet file"),
    "a footer longer than the file": (lambda: of(TABLE)[:-8] + b"\xff\xff\xff\xffPAR1", "longer than the file"),
    "half a file": (lambda: of(TABLE)[: len(of(TABLE)) // 2] + of(TABLE)[-8:], "not a sound Parquet file"),
    "no pages": (lambda: b"PAR1" + of(TABLE)[-(len(of(TABLE)) // 2) :], "not a sound Parquet file"),
    "no rows": (lambda: of(TABLE.slice(0, 0)), "at least one row"),
    "a list": (lambda: column("carrier", [["UA"]]), "carrier.list.element: is nested"),
    "a struct": (lambda: column("carrier", [{"a": 1}]), "carrier.a: is nested"),
    "a struct of its own name": (lambda: column("carrier", [{"carrier": "UA"}]), "is nested"),
    "a map": (lambda: column("carrier", pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8()))), "is nested"),
    "bytes": (lambda: column("carrier", [b"UA"]), "carrier: is of type BYTE_ARRAY: wanted texts"),
    "bytes of one length": (lambda: column("carrier", pa.array([b"UA"], pa.binary(2))), "FIXED_LEN_BYTE_ARRAY"),
    "a decimal": (lambda: column("distance", [Decimal("1.5")]), "is of type DECIMAL"),
    "a date": (lambda: column("scheduled_departure", [datetime(2013, 7, 1).date()]), "is of type DATE"),
    "a duration": (lambda: column("carrier", [timedelta(1)]), "holds durations"),
    "an infinite number": (lambda: column("distance", [float("inf")]), "found an infinite number"),
    "a year of six digits": (lambda: column("scheduled_departure", pa.array([2**62], pa.timestamp("us"))), "years 1"),
    "nanoseconds": (lambda: column("scheduled_departure", pa.array([1], pa.timestamp("ns"))), "found nanoseconds"),
    "only another column": (lambda: column("surplus", [1]), "is missing"),
    "a column twice": (lambda: of(pa.table([["a"], ["b"]], names=["dest", "dest"])), "dest: appears twice"),
    "too few columns": (lambda: column("carrier", ["UA"]), "is missing"),
    "a null": (lambda: of(TABLE.set_column(1, "carrier", pa.array([None, "UA"]))), "row 0, carrier: wanted a string"),
    "another type": (lambda: of(TABLE.set_column(1, "carrier", pa.array([1, 2]))), "wanted a string, found 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_400_and_told_why(client: httpx.Client, kind: str) -> None:
    make, told = BAD[kind]
    answer = client.post("/invocations", content=make(), headers=HEADERS)
    assert (answer.status_code, set(answer.json())) == (400, {"error_code", "message"})
    assert told in answer.json()["message"]
    assert "Traceback" not in answer.text


def varint(number: int, width: int) -> bytes:
    """A number as Thrift's compact protocol writes it, in so many bytes."""
    number, groups = 2 * number, []
    for _ in range(width):
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    assert number == 0
    return bytes([*groups[:-1], groups[-1] & 0x7F])


def lying(file: bytes, true: bytes, said: bytes) -> bytes:
    """A file whose footer says something else."""
    end = len(file) - 8 - int.from_bytes(file[-8:-4], "little")
    footer = file[end:]
    assert true in footer
    assert len(true) == len(said)
    return file[:end] + footer.replace(true, said)


PLAIN = {"use_dictionary": False, "compression": "zstd", "write_statistics": False}
LONG = "x" * 1_000_000
REPEATED = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), [LONG])
ONCE = {"compression": "zstd", "write_statistics": False, "store_schema": False}


def zeros() -> Any:
    return pa.array(["\0" * 6_400]).take(pa.array([0] * 10_000))


def said_to_be_small() -> bytes:
    file = column("carrier", zeros(), **PLAIN)
    size = pq.read_metadata(io.BytesIO(file)).row_group(0).column(0).total_uncompressed_size
    return lying(file, varint(size, 4), varint(100, 4))


BOMBS: dict[str, tuple[Callable[[], bytes], tuple[int, ...], str]] = {
    "64 MB of zeros": (lambda: column("carrier", zeros(), **PLAIN), (413,), "decompressed it takes 64,0"),
    "64 MB said to be 100 bytes": (said_to_be_small, (413,), "its texts take 64,000,000 bytes"),
    "a text of 1 MB ten thousand times": (
        lambda: column("carrier", REPEATED, **ONCE), (413,), "its texts take 10,000,000,000 bytes",
    ),
    "the same without saying so": (
        lambda: lying(column("carrier", REPEATED, **ONCE), b"\x00\x06\x10", b"\x00\x06\x00"),
        (413,), "cannot be decoded within",
    ),
    "ten million rows in a few bytes": (
        lambda: column("distance", pa.array([0] * 10_000_000, pa.int8())), (400,), "found 10,000,000",
    ),
    "ten rows said to be a thousand million": (
        lambda: lying(column("distance", [1.0] * 5_000), varint(5_000, 2), varint(8_191, 2)), (400,), "sound Parquet",
    ),
    "a prefix of 1 MB before every text": (
        lambda: column("carrier", [f"{LONG}{n}" for n in range(20)], use_dictionary=False,
                       column_encoding={"carrier": "DELTA_BYTE_ARRAY"}, compression="zstd"),
        (413,), "its texts take 20,",
    ),
    "a footer of 2 MB": (
        lambda: of(TABLE.replace_schema_metadata({"a": "b" * 2_000_000})), (413,), "its footer takes",
    ),
    "row groups of one row": (
        lambda: column("distance", [1.0] * 1_001, row_group_size=1, compression="none"), (413,), "1,001 row groups",
    ),
    "columns": (lambda: of(pa.table({f"c{n}": [1] for n in range(5_000)})), (400,), "is missing"),
    "elements in the footer": (lambda: of(pa.table({f"c{n}": [1] for n in range(10_001)})), (400, 413), ""),
    "texts that JSON writes at six times the length": (
        lambda: column("carrier", pa.array(["\1" * 500]).take(pa.array([0] * 10_000))), (413,), "as JSON its rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_within_the_memory_that_there_is(server: Server, kind: str) -> None:
    make, statuses, told = BOMBS[kind]
    worker = psutil.Process(server.process.pid)
    answer = server.client.post("/invocations", content=make(), headers=HEADERS)
    assert answer.status_code in statuses, answer.text
    assert told in answer.json()["message"]
    assert worker.memory_info().rss < WORKER_BYTES
    for child in worker.children():
        status = dict(line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
        assert int(status["VmHWM"].split()[0]) * 1024 < CHILD_BYTES
    assert server.client.post("/invocations", content=of(TABLE), headers=HEADERS).status_code == 200


def test_files_with_wrong_bytes_are_answered_all(server: Server) -> None:
    rng = random.Random(7)
    sound = [of(TABLE, **options) for options in ({}, PLAIN, {"data_page_version": "2.0"}, {"row_group_size": 1})]
    for _ in range(150):
        file = bytearray(rng.choice(sound))
        for _ in range(rng.choice((1, 3))):
            file[rng.randrange(len(file))] = rng.randrange(256)
        answer = server.client.post("/invocations", content=bytes(file), headers=HEADERS)
        assert answer.status_code in (200, 400, 413)
        assert "Traceback" not in answer.text
    for length in range(0, len(sound[0]), 97):
        cut = server.client.post("/invocations", content=sound[0][:length], headers=HEADERS)
        assert cut.status_code == 400


def the_child(server: Server) -> psutil.Process:
    [child] = psutil.Process(server.process.pid).children()
    return child


def test_the_decoder_inherits_no_secret_and_can_do_nothing_but_decode(server: Server) -> None:
    assert server.client.post("/invocations", content=of(TABLE), headers=HEADERS).status_code == 200
    process = Path(f"/proc/{the_child(server).pid}")
    names = {entry.partition(b"=")[0].decode() for entry in (process / "environ").read_bytes().split(b"\0") if entry}
    assert not {name for name in names if name.startswith("ML_PLATFORM") or name in ("HOME", "PATH")}, names
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    limits = {line[:26].strip(): line[26:].split()[:2] for line in (process / "limits").read_text().splitlines()[1:]}
    for what in ("Max core file size", "Max file size", "Max processes"):
        assert limits[what] == ["0", "0"], what
    assert limits["Max open files"] == ["32", "32"]
    assert limits["Max address space"][0] != "unlimited"
    assert limits["Max cpu time"][0] != "unlimited"


def test_a_decoder_that_died_is_replaced_without_loss(server: Server) -> None:
    file = of(TABLE)
    assert server.client.post("/invocations", content=file, headers=HEADERS).status_code == 200
    child = the_child(server)
    child.kill()
    server.wait_until(lambda _: child.status() == psutil.STATUS_ZOMBIE)
    assert server.client.post("/invocations", content=file, headers=HEADERS).status_code == 200
    child = the_child(server)
    child.suspend()
    answers: list[httpx.Response] = []
    adapter = threading.Thread(
        target=lambda: answers.append(
            httpx.post(f"{server.url}/invocations", content=file, headers=HEADERS, timeout=120)
        )
    )
    adapter.start()
    taken = 'ml_platform_queue_length{queue="parquet"} 1.0'
    server.wait_until(lambda client: taken in client.get("/metrics").text)
    assert server.client.post(f"/predict/{MODEL}", json=ROW).status_code == 200  # nothing else waits for it
    child.kill()
    adapter.join(120)
    assert answers[0].status_code == 200
    assert the_child(server) != child


def test_the_decoder_ends_with_its_worker(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 3)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        server = serve(settings)
        assert server.client.post("/invocations", content=of(TABLE), headers=HEADERS).status_code == 200
        child = the_child(server)
        child.send_signal(signal.SIGTERM)  # as a whole group is told to stop: it goes on
        assert server.client.post("/invocations", content=of(TABLE), headers=HEADERS).status_code == 200
        assert the_child(server) == child
        assert "Traceback" not in server.stop(sign)
        child.wait(120)
        assert not child.is_running()


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
def test_without_a_decoder_it_says_so(monkeypatch: pytest.MonkeyPatch, executable: str) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    decoder = ParquetProcess(ServingSettings())
    with pytest.raises(Refused, match="cannot be decoded now") as refused:
        asyncio.run(decoder.translate(of(TABLE), INPUTS))
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    decoder.close()
