"""Which errors are a lost race, to be tried again, and which are not."""

import pytest
from deltalake.exceptions import CommitFailedError, DeltaError

from ml_platform.lake.storage.commits import is_conflict


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (CommitFailedError("Metadata changed since last commit."), True),
        (DeltaError("Transaction failed: conflict with version 7"), True),
        (DeltaError("Parquet error: Failed to fetch metadata for file part-0.snappy.parquet: not found"), True),
        (DeltaError("Schema error: No field named amuont"), False),
        (DeltaError("Generic error: log segment not found"), False),
    ],
)
def test_only_a_rival_s_commit_or_vacuum_is_worth_another_try(error, lost):
    assert is_conflict(error) is lost
