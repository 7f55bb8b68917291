"""Two commands from a public table to a model that answers, in a fresh project; a failure says what to do."""

import json
import re

import pytest

from ml_platform_tests.docs.reader import SECOND_TERMINAL, Block, Reader
from ml_platform_tests.public_tables import public_table


@pytest.mark.slow
def test_public_tables_are_served_after_two_commands_each(reader: Reader) -> None:
    tables = {"churn": ("telco_churn", "Churn"), "rentals": ("bike_hourly", "cnt")}
    said = {}
    for model, (table, target) in tables.items():
        commands = (
            f"ml-platform new model {model} --data {public_table(table)} --target {target}\nml-platform run {model}"
        )
        said[model] = reader.run(Block("sh", "", commands))
        assert f"The gate released version 1 of {model}:" in said[model]
        assert f"8 of 8  {model}/release" in said[model]
        assert re.search(r"^  latency +[\d.]+ +≤ 5 +held$", said[model], re.MULTILINE)
        assert "Power, at a first try: " in said[model]
    assert reader.run(Block("sh", "", "ml-platform models power churn")).startswith(
        "churn: the gain in roc_auc of version 1"
    )
    reader.start(Block("sh", SECOND_TERMINAL, "python -m ml_platform.serving"))
    for model, text in said.items():
        [curl] = [line for line in text.splitlines() if line.startswith("curl ")]
        assert json.loads(reader.run(Block("sh", "", curl)))["model"] == model


@pytest.mark.slow
def test_a_failure_names_step_reason_and_what_to_do(reader: Reader) -> None:
    (reader.project / "calls.csv").write_text("a,y\n" + "".join(f"{n % 7},{n % 2}\n" for n in range(300)))
    reader.run(Block("sh", "", "ml-platform new model calls --data calls.csv --target y\nrm calls.csv"))
    said = reader.run(Block("sh", "", "ml-platform run calls 2>&1 || true\nml-platform run nothing 2>&1 || true"))
    assert "raw/calls failed: " in said
    assert "calls.csv" in said
    assert "/runs/" in said
    assert "When that is mended: ml-platform run calls" in said
    assert "unknown model 'nothing'" in said
