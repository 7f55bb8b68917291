"""What is done to the ledger's table behind its back: named by entry, and told from what a killed writer leaves."""

from datetime import UTC, datetime

import polars as pl
import pytest

from ml_platform.governance.audit_chain import Finding
from ml_platform.governance.audit_table import ingest_audit
from ml_platform.governance.ledger_check import anchor_ledger, unanchored, verify_ledger
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.ledger import LEDGER, next_link, read_ledger, record_registration
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def register(settings: Settings, version: int, *, anchored: bool = True) -> None:
    link = record_registration(
        Lake(settings.lake_uri),
        ReleaseStore(settings.releases_dir),
        model="rent",
        version=version,
        digest="ab" * 32,
        at=NOW,
        by="ann",
        reason="passed",
    )
    if anchored:
        anchor_ledger(settings, link)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """Holds a ledger of four entries, all anchored."""
    for version in range(1, 5):
        register(settings, version)
    return Lake(settings.lake_uri)


def linked_anew(entries: pl.DataFrame) -> pl.DataFrame:
    """The same entries with links that fit, as somebody would make them who knows how."""
    before, rows = "", []
    for entry in entries.sort("number").iter_rows(named=True):
        before = next_link(before, entry)
        rows.append({**entry, "link": before})
    return pl.DataFrame(rows, schema=entries.schema)


def findings(lake: Lake, settings: Settings) -> list[str]:
    return [str(finding) for finding in verify_ledger(lake, settings)[1]]


def test_what_was_written_is_verified(lake, settings):
    assert verify_ledger(lake, settings) == (4, [])
    ingest_audit(lake, settings)  # the anchors move into the lake
    assert verify_ledger(lake, settings) == (4, [])


def test_an_altered_entry_is_named(lake, settings):
    lake.replace(
        LEDGER, read_ledger(lake).with_columns(by=pl.when(pl.col("number") == 2).then(pl.lit("eve")).otherwise("by"))
    )
    assert findings(lake, settings) == [f"{LEDGER}, line 2: was altered (registration of rent)"]


def test_a_removed_entry_is_named(lake, settings):
    lake.replace(LEDGER, read_ledger(lake).filter(pl.col("number") != 2))
    assert findings(lake, settings) == [f"{LEDGER}, line 2: entry 2 is missing before entry 3"]


def test_entries_that_changed_places_are_named(lake, settings):
    swapped = pl.col("number").replace({2: 3, 3: 2})
    lake.replace(LEDGER, read_ledger(lake).with_columns(swapped))
    assert f"{LEDGER}, line 2: was altered (registration of rent)" in findings(lake, settings)


def test_an_end_that_was_cut_off_is_missed(lake, settings):
    lake.replace(LEDGER, read_ledger(lake).filter(pl.col("number") < 3))
    missing = "entries are missing at the end: the audit log has the anchor of entry 4"
    assert findings(lake, settings) == [f"{LEDGER}, line 3: {missing}"]
    lake.replace(LEDGER, read_ledger(lake).clear())
    assert verify_ledger(lake, settings)[1] == [Finding(LEDGER, 1, missing)]


def test_links_that_were_made_anew_are_not_the_anchored_ones(lake, settings):
    altered = read_ledger(lake).with_columns(by=pl.when(pl.col("number") == 3).then(pl.lit("eve")).otherwise("by"))
    lake.replace(LEDGER, linked_anew(altered))
    assert findings(lake, settings) == [
        f"{LEDGER}, line {number}: is not the entry that the audit log has the anchor of" for number in (3, 4)
    ]


def test_an_entry_whose_writer_died_before_its_anchor_is_no_finding(lake, settings):
    register(settings, 5, anchored=False)
    assert verify_ledger(lake, settings) == (5, [])
    register(settings, 6)
    assert verify_ledger(lake, settings) == (6, [])


def test_an_entry_without_its_anchor_is_named(lake, settings):
    assert unanchored(lake, settings) == []
    register(settings, 5, anchored=False)
    assert unanchored(lake, settings) == [5]
    register(settings, 6)
    assert unanchored(lake, settings) == []


def test_a_ledger_that_cannot_be_read_is_a_finding(lake, settings):
    whole = read_ledger(lake)
    lake.replace(LEDGER, whole.with_columns(number=pl.lit("one")))
    [finding] = findings(lake, settings)
    assert finding.startswith(f"{LEDGER}: cannot be read: ")
    lake.replace(LEDGER, whole)
    for file in (settings.home / "lake" / LEDGER).glob("*.parquet"):
        file.write_bytes(file.read_bytes()[:100])
    [finding] = findings(lake, settings)
    assert finding.startswith(f"{LEDGER}: cannot be read: ")
