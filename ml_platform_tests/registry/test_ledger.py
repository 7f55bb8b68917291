"""The ledger's entries: numbered, linked, each fact once, whoever writes them at the same time."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.ledger import (
    LEDGER,
    SCHEMA,
    first_link,
    next_link,
    read_ledger,
    record_registration,
    record_release,
    unrecorded,
)
from ml_platform.registry.releases import ReleaseStore

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(tmp_path / "releases")


def register(lake: Lake, store: ReleaseStore, version: int, model: str = "rent"):
    return record_registration(
        lake, store, model=model, version=version, digest="ab" * 32, at=NOW, by="ann", reason="passed"
    )


def withdraw(store: ReleaseStore, reason: str, model: str = "rent"):
    return store.publish(model, [], reason=reason, by="bob", action="withdrawal")


def links_hold(entries: pl.DataFrame) -> bool:
    before = first_link(entries.filter(pl.col("number").is_null()))
    for entry in entries.filter(pl.col("number").is_not_null()).sort("number").iter_rows(named=True):
        if entry["link"] != next_link(before, entry):
            return False
        before = entry["link"]
    return True


def test_entries_are_numbered_and_linked(lake, store):
    first = register(lake, store, 1)
    second = record_release(lake, store, withdraw(store, "too early"))
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (1, 2)
    entries = read_ledger(lake)
    assert links_hold(entries)
    assert entries.sort("number")["link"].to_list() == [first.link, second.link]
    assert not links_hold(entries.with_columns(reason=pl.lit("passed, and well")))


def test_a_fact_is_written_once(lake, store):
    document = withdraw(store, "too early")
    assert register(lake, store, 1) is not None
    assert register(lake, store, 1) is None
    assert record_release(lake, store, document) is not None
    assert record_release(lake, store, document) is None
    assert unrecorded(lake, store, "rent") == []
    assert read_ledger(lake).height == 2


def test_writers_at_the_same_time_number_one_after_the_other(lake, store):
    register(lake, store, 1)
    models = [f"model_{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda model: register(lake, store, 1, model), models))
    assert sorted(link.number for link in written if link) == list(range(2, 10))
    assert links_hold(read_ledger(lake))


def test_entries_from_before_there_were_links_are_vouched_for_by_the_first_link(lake, store):
    old = pl.DataFrame(
        [{"at": NOW, "model": "rent", "endpoint": "rent", "action": "promotion", "by": "ann", "revision": 1}],
        schema={name: kind for name, kind in SCHEMA.items() if name not in {"provenance", "number", "link"}},
    )
    lake.append(LEDGER, old)
    assert read_ledger(lake).height == 1
    assert register(lake, store, 2).number == 1
    entries = read_ledger(lake)
    assert links_hold(entries)
    assert not links_hold(entries.with_columns(by=pl.when(pl.col("revision") == 1).then(pl.lit("eve")).otherwise("by")))


def test_a_version_whose_bundle_is_gone_is_recorded_without_what_made_it(lake, store):
    register(lake, store, 1)
    assert read_ledger(lake).row(0, named=True)["provenance"] is None
