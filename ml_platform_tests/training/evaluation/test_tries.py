"""Every challenger judged on the same rows counts, and is remembered."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.training.evaluation.tries import count_try, read_tries

START = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(tmp_path)


def days(first: int, count: int = 28) -> pl.Series:
    return pl.Series([START + timedelta(days=first + day) for day in range(count)])


def tried(store: ReleaseStore, digest: str, *, rows: pl.Series | None = None, **changes: str) -> float:
    about = {"metric": "roc_auc", "reference": "champion"} | changes
    return count_try(store, "late", model_digest=digest, timestamps=days(0) if rows is None else rows, **about)


def test_every_other_challenger_on_the_same_rows_is_a_try(store: ReleaseStore) -> None:
    assert [tried(store, digest) for digest in "abcd"] == [1, 2, 3, 4]


def test_judging_again_is_no_new_try_and_forgets_none(store: ReleaseStore) -> None:
    assert [tried(store, digest) for digest in "abba"] == [1, 2, 2, 1]
    assert tried(store, "c") == 3
    assert len(read_tries(store, "late")) == 3


def test_another_metric_is_another_try_of_the_same_model(store: ReleaseStore) -> None:
    tried(store, "a")
    assert tried(store, "a", metric="log_loss") == 2


def test_a_new_champion_starts_anew_and_the_old_one_again_does_not(store: ReleaseStore) -> None:
    tried(store, "a")
    assert tried(store, "b", reference="a") == 1
    assert tried(store, "c") == 2


def test_rows_that_overlap_in_part_count_in_part(store: ReleaseStore) -> None:
    tried(store, "a", rows=days(0))
    assert tried(store, "b", rows=days(7)) == pytest.approx(1.75)
    assert tried(store, "c", rows=days(14)) == pytest.approx(1 + 0.5 + 0.75)
    assert tried(store, "d", rows=days(60)) == 1


def test_models_are_counted_apart(store: ReleaseStore) -> None:
    tried(store, "a")
    assert count_try(store, "other", model_digest="b", metric="roc_auc", reference="", timestamps=days(0)) == 1


def test_tries_at_the_same_time_are_all_counted(store: ReleaseStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        counted = list(pool.map(lambda digest: tried(store, digest), "abcdefgh"))
    assert sorted(counted) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_damaged_document_is_no_empty_one(store: ReleaseStore) -> None:
    tried(store, "a")
    store.tries_path("late").write_text("[")
    with pytest.raises(DocumentUnreadable, match=r"tries/late.json: not a list of the gate's tries"):
        tried(store, "b")
