"""A row goes through the quarantine, and a file of corrections, as the values that it had."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from ml_platform.lake.cli.sql import Format, render
from ml_platform.lake.ingestion.quarantine import look, readmit
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.ingestion.row_json import read_back, to_json
from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.storage.tables import Lake

VALUES: dict[str, tuple[pl.DataType, list[Any]]] = {
    "bytes": (pl.Binary(), [b"\x00\xff", b"", b"base64:AP8=", None]),
    "list": (pl.List(pl.Binary()), [[b"\xff", None], [], None]),
    "struct": (pl.Struct({"b": pl.Binary(), "f": pl.Float64()}), [{"b": b"\xff", "f": 1.5}, None]),
    "deep": (pl.List(pl.Struct({"b": pl.List(pl.Binary())})), [[{"b": [b"\x80"]}, None], [{"b": None}]]),
    "floats": (pl.List(pl.Float64()), [[1.5, float("inf"), None], [float("-inf")], [0.1 + 0.2]]),
    "decimals": (pl.List(pl.Decimal(10, 2)), [[Decimal("1.10")], None]),
    "dates": (pl.List(pl.Date()), [[date(2024, 1, 5), None]]),
    "instants": (pl.List(pl.Datetime("us", "UTC")), [[datetime(2024, 1, 5, 10, 0, 0, 250, tzinfo=UTC)]]),
    "texts": (pl.List(pl.String()), [['a\n"b', "", None]]),
    "integers": (pl.List(pl.Int64()), [[2**63 - 1, -(2**63)]]),
    "truths": (pl.List(pl.Boolean()), [[True, None]]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_from_json(kind: str) -> None:
    dtype, values = VALUES[kind]
    rows = pl.DataFrame({"x": pl.Series(values, dtype=dtype)})
    texts = [json.loads(text)["x"] for text in to_json(rows)]
    shown = [text if text is None or isinstance(text, str) else json.dumps(text) for text in texts]
    back, wrong = read_back(pl.DataFrame({"x": pl.Series(shown, dtype=pl.String)}), {"x": dtype})
    assert (wrong, back.schema) == ({}, rows.schema)
    assert back["x"].to_list() == values


def test_nan_comes_back_as_nan() -> None:
    (text,) = to_json(pl.DataFrame({"x": [[float("nan")]]}))
    back, _ = read_back(pl.DataFrame({"x": [json.dumps(json.loads(text)["x"])]}), {"x": pl.List(pl.Float64())})
    assert back["x"][0].is_nan().all()


def test_what_cannot_be_read_back_is_told_by_its_place() -> None:
    texts = pl.DataFrame({"b": ["base64:AP8=", "base64:A", "plain", None], "l": ["[1]", "[1]", "1", "[1.5"]})
    back, wrong = read_back(texts, {"b": pl.Binary(), "l": pl.List(pl.Int64())})
    assert back.to_dicts() == [
        {"b": b"\x00\xff", "l": [1]},
        {"b": None, "l": [1]},
        {"b": b"plain", "l": None},
        {"b": None, "l": None},
    ]
    reason = "l: not a value of type List(Int64) in JSON"
    assert wrong == {1: ["b: not bytes in base64"], 2: [reason], 3: [reason]}


class Scans(dy.Schema):
    scan = dy.String(primary_key=True)
    image = dy.Binary()
    tiles = dy.List(dy.Binary())
    sharpness = dy.Float64(min=0)


def test_a_corrected_row_keeps_the_bytes_that_it_had(lake: Lake, tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {"scan": ["a", "b"], "image": [b"\x00\xff", b"ok"], "tiles": [[b"\xfe"], []], "sharpness": [-1.0, float("nan")]}
    )
    table = RawTable(
        name="raw/scans", description="Scans.", source="scans.parquet", contract=Scans, read=lambda _start, _end: rows
    )
    assert table.load(lake).rows_quarantined == 2
    shown = look(lake, "raw/scans").with_columns(sharpness=pl.lit("0.5"))
    (tmp_path / "rows.csv").write_text(render(shown, Format.CSV))
    corrected = read_file(tmp_path / "rows.csv", Files(null_values=()))
    wrong = corrected.with_columns(image=pl.lit("base64:?"))
    refused = readmit(lake, table, wrong, by="me", note="torn")
    assert set(map(tuple, refused.refused.values())) == {("image: not bytes in base64",)}
    assert (refused.admitted, refused.gone) == (0, 0)
    report = readmit(lake, table, corrected, by="me", note="measured again")
    assert (report.admitted, report.refused) == (2, {})
    assert lake.read("raw/scans").sort("scan").collect().rows() == [
        ("a", b"\x00\xff", [b"\xfe"], 0.5),
        ("b", b"ok", [], 0.5),
    ]
