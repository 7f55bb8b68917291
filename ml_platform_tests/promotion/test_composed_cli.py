"""Composed endpoints are declared in a project, published by the command line or by Dagster, listed and retired."""

from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.orchestration.composed_asset import composed_assets
from ml_platform.orchestration.resources import build_resources
from ml_platform.promotion.retire import use_of
from ml_platform.registry.composition import CompositionStore
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec_yaml import check_project, load_composed
from ml_platform.yaml_documents import SpecError
from ml_platform_tests.serving.releases import bundle

DECLARED = """\
type: ml_platform.orchestration.ComposedEndpoint
attributes:
  name: together
  description: Late, by two models.
  owner: team:flights
  ensemble:
    members: {north: 3, south: 1}
"""
PROJECT = """\
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "ours"
code_location_target_module = "ours.definitions"
"""


@pytest.fixture
def declared(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a project that declares one, whose members are released."""
    path = tmp_path / "project" / "ours" / "defs" / "together" / "defs.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(DECLARED)
    (tmp_path / "project" / "pyproject.toml").write_text(PROJECT)
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(tmp_path / "project"))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    store = ReleaseStore(settings.releases_dir)
    for version, name in enumerate(("north", "south"), 1):
        digest = store.put_bundle(bundle(version, model=name))
        store.register_version(name, version, digest)
        store.publish(name, [Target(version=version, digest=digest)], reason="for a test", by="pytest")
    return path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compose", *arguments])
    return result.exit_code, result.output


def test_it_is_published_listed_changed_and_retired(declared: Path, settings: Settings) -> None:
    assert "No composed endpoint is published" in run("list")[1]
    code, told = run("publish", "together", "--reason", "better together")
    assert (code, "the mean of north (0.75), south (0.25) (revision 1)" in told) == (0, True)
    assert "revision 1" in run("publish", "together", "--reason", "the same")[1]
    declared.write_text(DECLARED.replace("north: 3", "north: 1"))
    assert "revision 2" in run("publish", "together", "--reason", "half and half", "--revision", "1")[1]
    assert run("publish", "together", "--reason", "late", "--revision", "1")[0] == 1
    listed = run("list")[1]
    assert "together: the mean of north (0.5), south (0.5); revision 2" in listed
    assert "half and half" in listed
    store = ReleaseStore(settings.releases_dir)
    with pytest.raises(LookupError, match="'together' is a composed endpoint and has no versions"):
        store.check_version("together")
    assert use_of(settings, "south", {}, {}).readers == ("composed endpoint together (south)",)
    store.publish("south", [], reason="over", by="pytest", action="retirement")
    assert "does not fit what is released now" in run("list")[1]
    assert run("retire", "together", "--reason", "over")[0] == 0
    assert CompositionStore(store).all() == {}
    code, told = run("retire", "togther", "--reason", "over")
    assert (code, "unknown composed endpoint 'togther'" in told) == (1, True)


def test_the_status_lists_it_with_its_members(declared: Path, settings: Settings) -> None:
    run("publish", "together", "--reason", "better together")

    def status(*names: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["status", *names])
        return result.exit_code, result.output

    code, told = status("together")
    assert code == 0
    assert told.splitlines()[0] == "together: the mean of north (0.75), south (0.25); revision 1"
    assert [line for line in told.splitlines() if "version" in line] == [
        "  north: version 1 (live 100%)",
        "  south: version 2 (live 100%)",
    ]
    assert "together: the mean of" in status()[1]
    store = ReleaseStore(settings.releases_dir)
    store.publish("south", [], reason="over", by="pytest", action="retirement")
    assert "  south: nothing serves" in status("together")[1]
    assert "does not fit what is released now" in status("together")[1]
    CompositionStore(store).path("together").write_text("{")
    code, told = status()
    assert (code, "publish it again" in told) == (1, True)
    assert "publish it again" in run("list")[1]
    assert "no endpoint is called 'south'" not in run("publish", "together", "--reason", "x")[1]
    assert run("retire", "together", "--reason", "over")[0] == 0
    assert status("together")[0] == 1


@pytest.mark.parametrize(
    ("of", "how"),
    [
        ("ensemble:\n    members: {north: 3, south: 1}", "their weighted mean"),
        ("route: {by: carrier, map: {UA: north}, default: south}", "each member from a SELECT of its segment"),
    ],
)
def test_scoring_a_table_by_it_is_refused_with_what_to_do(declared: Path, tmp_path: Path, of: str, how: str) -> None:
    declared.write_text(DECLARED[: DECLARED.index("ensemble")] + of)
    assert run("publish", "together", "--reason", "x")[0] == 0
    source = tmp_path / "rows.csv"
    source.write_text("carrier\nUA\n")
    score = ["score", "together", "--from", str(source), "--to", str(tmp_path / "scores.parquet")]
    told = [
        CliRunner().invoke(app, score),
        CliRunner().invoke(app, ["sql", "SELECT predict('together', o) FROM (SELECT 'UA' AS carrier) o"]),
    ]
    for result in told:
        assert result.exit_code == 1
        text = " ".join(result.output.split())
        assert f"Score each of its members, north, south, and put the columns `score` together ({how})" in text


def test_what_cannot_be_published_is_told(declared: Path) -> None:
    code, told = run("publish", "togehter", "--reason", "x")
    assert (code, "did you mean 'together'?" in told) == (1, True)
    declared.write_text(DECLARED.replace("south", "suoth"))
    code, told = run("publish", "together", "--reason", "x")
    assert (code, "no endpoint is called 'suoth'; did you mean 'south'?" in told) == (1, True)


@pytest.mark.parametrize(
    ("written", "line", "told"),
    [
        (DECLARED.replace("ensemble", "ensembel"), 6, "did you mean 'ensemble'?"),
        (DECLARED.replace("north: 3", "north: 0"), 7, "wanted a weight above 0"),
        (
            DECLARED + "  route: {by: carrier, map: {UA: north}, default: south}\n",
            2,
            "wanted one of ensemble, pipeline",
        ),
        (DECLARED.replace("together", "Together"), 3, "String should match"),
    ],
)
def test_a_mistake_is_told_with_its_line(declared: Path, written: str, line: int, told: str) -> None:
    declared.write_text(written)
    with pytest.raises(SpecError) as error:
        check_project(declared.parents[1], {})
    [problem] = [one for one in error.value.problems if told in one.message]
    assert problem.line == line


def test_the_asset_publishes_it_after_the_releases_of_its_members(declared: Path, settings: Settings) -> None:
    release, log = composed_assets(load_composed(declared))
    assert release.asset_deps[dg.AssetKey(["together", "release"])] == {
        dg.AssetKey(["north", "release"]),
        dg.AssetKey(["south", "release"]),
    }
    result = dg.materialize([release, log], resources=build_resources(settings))
    [event] = result.asset_materializations_for_node("together__release")
    assert event.metadata["endpoint"].value == "/predict/together"
    [event] = result.asset_materializations_for_node("together__inference_log")
    assert event.metadata["new rows"].value == 0
    assert list(CompositionStore(ReleaseStore(settings.releases_dir)).all()) == ["together"]
