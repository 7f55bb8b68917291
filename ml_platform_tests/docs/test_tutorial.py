"""The tutorial, block by block as it stands, in a fresh project and on fresh state; then a backup of it, restored.

And what the README says of a table of one's own.
"""

import json

import pytest

from ml_platform_tests.docs.reader import SECOND_TERMINAL, Block, Reader, blocks
from ml_platform_tests.paths import PROJECT_ROOT

TUTORIAL = PROJECT_ROOT / "docs" / "tutorial" / "own-table.md"
BACKUP = PROJECT_ROOT / "docs" / "operations" / "backup.md"
README = PROJECT_ROOT / "README.md"
SERVES = "late_orders: version 1 (live 100%)"


def test_every_block_is_a_file_or_commands() -> None:
    assert {(block.language, bool(block.title)) for block in blocks(TUTORIAL) if block.title != SECOND_TERMINAL} == {
        ("python", True),
        ("yaml", True),
        ("sql", True),
        ("sh", False),
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_of_it_works_in_order(reader: Reader) -> None:
    outputs: dict[str, str] = {}
    for block in blocks(TUTORIAL):
        if block.title == SECOND_TERMINAL:
            reader.start(block)
        elif block.title:
            reader.write(block)
        else:
            outputs[block.text] = reader.run(block)
    answers = [json.loads(output) for text, output in outputs.items() if text.startswith("curl")]
    answered, refused = answers
    [prediction] = answered["predictions"]
    assert (answered["model"], answered["version"], prediction["id"]) == ("late_orders", 1, "o-12000")
    assert isinstance(prediction["prediction"], bool)
    assert 0 < prediction["probability"] < 1
    assert [problem["field"] for problem in refused["error"]["problems"]] == ["amount"]
    statuses = [output for text, output in outputs.items() if "ml-platform status" in text]
    assert all(SERVES in status for status in statuses), statuses
    restored = reader.run(Block("sh", "", "\n".join(block.text for block in blocks(BACKUP))))
    assert "raw/orders" in restored
    assert SERVES in restored


@pytest.mark.slow
def test_the_readme_makes_a_model_of_a_table_that_scikit_learn_brings(reader: Reader) -> None:
    [block] = [block for block in blocks(README) if "ml-platform new model" in block.text]
    said = reader.run(block)
    assert "The gate released version 1 of wine" in said
    reader.start(Block("sh", SECOND_TERMINAL, "python -m ml_platform.serving"))
    [curl] = [line for line in said.splitlines() if line.startswith("curl ")]
    answer = json.loads(reader.run(Block("sh", "", curl)))
    assert (answer["model"], answer["version"]) == ("wine", 1)
    [prediction] = answer["predictions"]
    assert prediction["prediction"] in {0, 1, 2}
