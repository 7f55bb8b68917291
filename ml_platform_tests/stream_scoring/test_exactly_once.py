"""Every message is answered exactly once, whatever is killed: KILLS=100 for the long form."""

import os

import pytest

from ml_platform_tests.stream_scoring.marathon import run_marathon


@pytest.mark.slow
def test_kills_lose_and_double_no_row(tmp_path):
    counted = run_marathon(tmp_path, int(os.environ.get("KILLS", "12")))
    assert (counted.lost, counted.doubled, counted.table_differs) == (0, 0, 0), counted
    assert counted.answered + counted.dead_letters == counted.messages
    assert counted.dead_letters > 0
    assert counted.versions == (3, 4)
