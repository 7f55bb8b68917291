"""The how-to works as it stands: a forecast is searched, judged, adopted, released, and answers for a later day."""

import json

import pytest

from ml_platform_tests.docs.reader import SECOND_TERMINAL, Block, Reader, blocks
from ml_platform_tests.paths import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "how-to" / "models" / "forecasting.md"
LATER = "While make dev runs"
QUICK = "--minutes 0.2 --family ridge --family lightgbm"


@pytest.mark.slow
def test_the_how_to_ends_with_a_forecast_over_http(reader: Reader) -> None:
    said, later = "", []
    for block in blocks(PAGE):
        if block.title == LATER:
            later.append(block)
            continue
        said += reader.run(Block(block.language, block.title, block.text.replace("--minutes 5", QUICK)))
    assert "season: 7 days" in said
    assert "beats the seasonal naive forecast (mae " in said
    assert "beats the mean of the series so far (mae " in said
    assert "same as on the leaderboard" in said
    assert "another as on the leaderboard" not in said
    assert "The gate released version 1 of sales:" in said
    reader.start(Block("sh", SECOND_TERMINAL, "python -m ml_platform.serving"))
    [curl] = later
    answer = json.loads(reader.run(curl))
    expected = (20 + 0.02 * 403) * 1.3  # a Friday in the north, with a standard deviation of 3
    assert answer["model"] == "sales"
    assert "degraded" not in answer
    assert answer["predictions"][0]["prediction"] == pytest.approx(expected, abs=4)
