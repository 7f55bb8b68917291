"""Entities that were erased: rows of theirs are left out of every write to the lake, from whichever source they come.

The list is a document of the lake (`_erasure/suppressed.json`), so that everything that writes there finds it. It holds
keyed hashes and no values. Without the document a write costs one look whether it is there.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from ml_platform.atomic_files import locked, replace_file
from ml_platform.suppression_list import SuppressedEntity, SuppressionFile, Suppressions

if TYPE_CHECKING:
    from ml_platform.lake.storage.lake_reader import LakeReader

FILE = "_erasure/suppressed.json"
DERIVED = ("features", "pushed", "training_sets", "predictions", "inference_log", "quarantine", "automl")
JSON_COLUMNS = ("inputs", "row", "value")  # texts in which the platform keeps what it was sent


_files: dict[str, SuppressionFile] = {}  # of local lakes


def suppressions(lake: "LakeReader") -> Suppressions | None:
    """Read the list of a lake; None where nobody was ever erased."""
    if lake.is_local:
        return _files.setdefault(lake.uri, SuppressionFile(Path(lake.uri, FILE))).read()
    import pyarrow.fs

    store = lake.store()
    (info,) = store.get_file_info([FILE])
    if info.type != pyarrow.fs.FileType.File:
        return None
    with store.open_input_stream(FILE) as file:
        return msgspec.json.decode(file.read(), type=Suppressions)


def suppress(
    lake: "LakeReader",
    entity: str,
    texts: Collection[str],
    *,
    tables: Mapping[str, Collection[str]],
    names: Collection[str],
) -> None:
    """Leave rows of these entities out of every later write; they are added to those that are there.

    Two at once on one machine wait for one another; on several, one should erase at a time.

    Examples
    --------
    >>> import tempfile
    >>> from ml_platform.lake.storage.tables import Lake
    >>> lake = Lake(tempfile.mkdtemp())
    >>> suppress(lake, "customer", ["7"], tables={"raw/orders": ["customer"]}, names=["customer"])
    >>> _ = lake.append("raw/orders", pl.DataFrame({"customer": [6, 7]}))
    >>> lake.read("raw/orders").collect()["customer"].to_list()
    [6]
    """
    if not lake.is_local:
        _write(lake, _extended(suppressions(lake), entity, texts, tables, names))
        return
    Path(lake.uri, FILE).parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(lake.uri, FILE).with_suffix(".lock")):
        _write(lake, _extended(suppressions(lake), entity, texts, tables, names))


def without_suppressed(lake: "LakeReader", table: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out the rows of entities that were erased."""
    listed = suppressions(lake)
    if listed is None or rows.is_empty():
        return rows
    for one in listed.entities.values():
        hashes = set(one.hashes)
        for name in columns_of(table, rows.columns, one.tables, one.names):
            is_json = name in JSON_COLUMNS and name not in one.tables.get(table, ())
            values = entity_texts(rows[name], one.names if is_json else None)
            erased = [text for text in values.explode().unique().drop_nulls() if listed.hash(text) in hashes]
            if erased:
                rows = rows.filter(~values.list.eval(pl.element().is_in(erased)).list.any())
    return rows


def columns_of(
    table: str, columns: Sequence[str], tables: Mapping[str, Collection[str]], names: Collection[str]
) -> list[str]:
    """Columns of a table by which an entity is known: declared ones; in derived tables by name, and JSON too."""
    declared = set(tables.get(table, ()))
    searched_by_name = bool(names) and (table.partition("/")[0] in DERIVED or table in tables)
    by_name = {*names, *JSON_COLUMNS} if searched_by_name else set()
    return [name for name in columns if name in declared or name in by_name]


def entity_texts(values: pl.Series, fields: Collection[str] | None = None) -> pl.Series:
    """Texts of the values of a column, a list for each row; with `fields`, of these fields wherever in its JSON.

    Examples
    --------
    >>> entity_texts(pl.Series([1, None])).to_list()
    [['1'], [None]]
    >>> entity_texts(pl.Series(['{"a": {"customer": "x"}, "b": 2}']), ["customer", "b"]).to_list()
    [['x', '2']]
    """
    if fields is not None:
        if values.dtype != pl.String:
            return pl.Series(values.name, [[]] * len(values), dtype=pl.List(pl.String))
        wanted = "|".join(_escaped(name) for name in fields)
        pairs = values.str.extract_all(rf'"(?:{wanted})"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[-+0-9.eE]+)')
        one = pl.element().str.replace(rf'^"(?:{wanted})"\s*:\s*', "")
        text = pl.when(one.str.starts_with('"')).then(one.str.slice(1, one.str.len_chars() - 2)).otherwise(one)
        return pairs.list.eval(text.str.replace(r"^(-?\d+)\.0$", "$1"))
    if values.dtype.is_float():
        texts = values.cast(pl.String).str.replace(r"\.0$", "")
    elif values.dtype == pl.Binary:
        texts = values.map_elements(lambda value: bytes(value).decode("utf-8", "replace"), return_dtype=pl.String)
    elif values.dtype.is_nested():
        texts = pl.Series(values.name, [None] * len(values), dtype=pl.String)
    else:
        texts = values.cast(pl.String)
    return texts.reshape((-1, 1)).arr.to_list() if len(texts) else texts.cast(pl.List(pl.String))


def _extended(
    there: Suppressions | None,
    entity: str,
    texts: Iterable[str],
    tables: Mapping[str, Collection[str]],
    names: Collection[str],
) -> Suppressions:
    listed = there or Suppressions(key=secrets.token_hex(32))
    one = listed.entities.get(entity) or SuppressedEntity()
    merged = {table: sorted({*one.tables.get(table, ()), *tables.get(table, ())}) for table in {**one.tables, **tables}}
    hashes = sorted({*one.hashes, *map(listed.hash, texts)})
    everyone = {**listed.entities, entity: SuppressedEntity(merged, sorted({*one.names, *names}), hashes)}
    return Suppressions(listed.key, everyone)


def _write(lake: "LakeReader", listed: Suppressions) -> None:
    content = msgspec.json.format(msgspec.json.encode(listed), indent=1)
    if lake.is_local:
        replace_file(Path(lake.uri, FILE), content)
        return
    with lake.store().open_output_stream(FILE) as file:
        file.write(content)


def _escaped(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "_" else f"\\x{{{ord(letter):x}}}" for letter in text)
