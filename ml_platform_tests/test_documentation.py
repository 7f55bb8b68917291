"""The documentation in the terminal: all pages are listed, one is printed, a wrong name is told."""

from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.documentation import pages
from ml_platform_tests.paths import PROJECT_ROOT


def run(*arguments):
    return CliRunner().invoke(app, ["docs", *arguments])


def test_all_pages_are_listed_with_their_titles():
    result = run()
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == list(pages())
    assert all(len(line.split()) > 1 for line in lines)
    assert {PROJECT_ROOT / "docs" / f"{name}.md" for name in pages()} == set((PROJECT_ROOT / "docs").rglob("*.md"))


def test_a_page_is_printed_by_its_name_or_a_part_of_it():
    text = (PROJECT_ROOT / "docs" / "how-to" / "features" / "rolling.md").read_text("utf-8")
    for name in (
        "how-to/features/rolling",
        "rolling",
        "docs/how-to/features/rolling.md",
        "rolling aggregates without sql",
    ):
        assert run(name).output.strip() == text.strip()


def test_several_pages_are_listed_and_none_is_told():
    assert {line.split()[0] for line in run("how-to/features").output.splitlines()} == {
        name for name in pages() if name.startswith("how-to/features")
    }
    result = run("no such page")
    assert result.exit_code == 1
    assert "no page has 'no such page' in its name or title; `ml-platform docs` lists them" in result.output
