"""A version made again from what was recorded is the same, or the report says exactly what is not."""

import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import yaml

from ml_platform.promotion.card import write_card
from ml_platform.promotion.reproduction.keep import keep
from ml_platform.promotion.reproduction.pages import reproduction_html, reproduction_text
from ml_platform.promotion.reproduction.reproduce import reproduce
from ml_platform.promotion.versions import register
from ml_platform.registry.card_pages import card_markdown
from ml_platform.registry.manifest import Imported, Manifest, Recalibrated
from ml_platform.registry.model_card import load_card
from ml_platform.registry.origins import Origin, note_origin
from ml_platform.registry.reproductions import Check, Reproduction, reproductions_of
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import REQUEST_FEATURES, SPINE, VIEW, Shops


def project(
    folder: Path, shops: Shops, *, spine: str = "", request: str = "", view: str = "", **changes: object
) -> Path:
    """Definitions as the small world's, with some of them changed; returns `defs/`."""
    declared = {**shops.spec.model_dump(mode="json", exclude_defaults=True), **changes}
    (folder / "order_late").mkdir(parents=True)
    (folder / "features").mkdir()
    document = {"type": "ml_platform.orchestration.TabularModel", "attributes": declared}
    (folder / "order_late" / "defs.yaml").write_text(yaml.safe_dump(document))
    (folder / "order_late" / "late.sql").write_text(spine or SPINE.format(target="late"))
    (folder / "order_late" / "request_features.py").write_text(request or REQUEST_FEATURES)
    (folder / "features" / "shop_load.sql").write_text(view or VIEW)
    return folder


@pytest.fixture(scope="module")
def world(trained_shops: tuple[Shops, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> tuple[Shops, Path]:
    """Version 1 is judged, version 2 its refit. Read only."""
    first, trained = trained_shops
    home = shutil.copytree(first.settings.home, tmp_path_factory.mktemp("reproduced") / "shops")
    shops = Shops(Settings(home=home), first.folder, first.spec, first.views)
    evaluation = shops.evaluate(trained).model_copy(update={"promote": True})
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    write_card(shops.spec, shops.folder, trained, evaluation, version, tracker=shops.tracker)
    refit = shops.refit(trained, evaluation)
    assert refit.refit is not None
    assert refit.refit.refitted
    register(shops.spec, refit, evaluation, tracker=shops.tracker)
    return shops, project(home.parent / "defs", shops)


@pytest.fixture
def own(world: tuple[Shops, Path], tmp_path: Path) -> Shops:
    """A copy of the world to change."""
    shops, _ = world
    home = shutil.copytree(shops.settings.home, tmp_path / "home")
    return Shops(Settings(home=home), shops.folder, shops.spec, shops.views)


def remade(shops: Shops, defs: Path, version: int = 1, **options: bool) -> Reproduction:
    return reproduce(shops.lake, shops.store, defs, "order_late", version, by="somebody", **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_recipe(shops: Shops) -> dict[str, Any]:
    recipe: dict[str, Any] = msgspec.json.decode(recipe_path(shops).read_bytes())
    return recipe


def write_recipe(shops: Shops, recipe: dict[str, Any]) -> None:
    recipe_path(shops).write_bytes(msgspec.json.encode(recipe))


def recipe_path(shops: Shops) -> Path:
    return shops.store.folder / "recipes" / f"{shops.store.versions('order_late')[1]}.json"


def check(report: Reproduction, what: str) -> Check:
    return next(one for one in report.checks if one.what == what)


def test_a_version_is_the_same_again_and_nothing_of_the_state_changes(world: tuple[Shops, Path]) -> None:
    shops, defs = world
    before = files_of(shops.settings.home)
    report = remade(shops, defs, search=True)
    assert report.verdict == "equal", "\n".join(reproduction_text(report))
    assert files_of(shops.settings.home) == before
    assert {one.what for one in report.checks} >= {
        "rows",
        "split: holdout",
        "trials of the search",
        "metrics on the holdout (model)",
        "graph (model)",
        "digest of the model",
    }
    assert report.definitions == ()
    assert "raw/orders version 0" in report.rows
    assert report.parameters.startswith("the search was repeated")


def test_a_refit_is_made_again_with_the_model_that_was_judged(world: tuple[Shops, Path]) -> None:
    report = remade(*world, version=2)
    assert report.verdict == "equal", "\n".join(reproduction_text(report))
    assert check(report, "digest of the judged model").equal
    assert check(report, "digest of the model").recorded != check(report, "digest of the judged model").recorded
    assert report.parameters.startswith("fitted with the recorded parameters; the search")


def test_definitions_that_changed_since_are_told_and_the_recorded_ones_used(
    world: tuple[Shops, Path], tmp_path: Path
) -> None:
    shops, _ = world
    changed = project(
        tmp_path / "defs",
        shops,
        spine=SPINE.format(target="late") + "WHERE weight < 5",
        request=REQUEST_FEATURES.replace("> 20", "> 30"),
        view=VIEW.replace("ttl: 3 days", "ttl: 2 days"),
        tuning={"trials": 9, "seed": 8},
    )
    report = remade(shops, changed)
    assert report.verdict == "equal", "\n".join(reproduction_text(report))
    told = {one.what: one for one in report.definitions}
    assert set(told) == {
        "defs.yaml: tuning.seed",
        "defs.yaml: tuning.trials",
        "late.sql",
        "request_features.py",
        "feature view shop_load",
    }
    assert told["defs.yaml: tuning.seed"].recorded == "7"
    assert "+WHERE weight < 5" in told["late.sql"].detail
    assert "request features as the bundle keeps them" in report.rows


def test_a_model_that_is_not_declared_any_more_is_made_again(world: tuple[Shops, Path], tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    report = remade(world[0], tmp_path)
    assert report.verdict == "equal"
    [told] = report.definitions
    assert told.found == "not found"
    assert "order_late" in told.detail


def test_other_rows_under_a_pinned_version_are_told_by_column_and_row(own: Shops, world: tuple[Shops, Path]) -> None:
    """A recipe that names another version of a table, which stands for a table that was written over."""
    orders = own.lake.read("raw/orders").collect()
    heavier = pl.when(pl.col("order_id") == "order-7").then(99.0).otherwise(pl.col("weight"))
    version = own.lake.replace("raw/orders", orders.with_columns(heavier.alias("weight")))
    recipe = read_recipe(own)
    recipe["training_set"]["tables"]["raw/orders"] = version
    write_recipe(own, recipe)
    report = remade(own, world[1])
    assert report.verdict == "differs"
    rows = check(report, "rows")
    assert "weight: 1 of " in rows.detail
    assert "is 99.0" in rows.detail
    assert report.reasons[0].startswith("differs in rows")


def test_a_model_that_comes_out_otherwise_is_told_down_to_the_graph(own: Shops, world: tuple[Shops, Path]) -> None:
    recipe = read_recipe(own)
    recipe["params"] = {"C": 0.001}
    assert recipe["family"] == "logistic_regression"
    write_recipe(own, recipe)
    report = remade(own, world[1], search=True)
    assert report.verdict == "differs"
    told = {one.what: one.detail for one in report.checks if not one.equal}
    assert set(told) == {
        f"parameters of trial {recipe['chosen']}",
        "metrics on the holdout (model)",
        "graph (model)",
        "digest of the model",
    }
    assert "C: was 0.001, is " in told[f"parameters of trial {recipe['chosen']}"]
    assert "graphs differ in " in told["graph (model)"]
    assert "constant numeric_weights" in told["graph (model)"]
    assert re.search(r"scores of [\d,]+ of [\d,]+ holdout rows differ, by ", told["graph (model)"])
    assert "* graph (model)" in "\n".join(reproduction_text(report))


def test_vacuumed_tables_leave_the_stored_rows_and_without_those_nothing(own: Shops, world: tuple[Shops, Path]) -> None:
    orders = own.lake.read("raw/orders").collect()
    own.lake.replace("raw/orders", orders.head(10))
    gone = set(own.lake.snapshot("raw/orders", 0).file_uris())
    for path in map(Path, gone):
        path.unlink()
    report = remade(own, world[1])
    assert report.verdict == "partly"
    assert check(report, "digest of the model").equal
    assert "'raw/orders' at version 0 cannot be read" in report.rows
    ref = own.store.load_manifest(report.digest).provenance
    shutil.rmtree(Path(own.lake.location(ref.training_set)))
    report = remade(own, world[1])
    assert report.verdict == "not reproduced"
    assert "The stored rows are gone, too" in report.reasons[0]


def test_a_version_without_bundle_or_recipe_is_refused_with_what_to_do(own: Shops, world: tuple[Shops, Path]) -> None:
    digest = own.store.versions("order_late")[1]
    (own.store.folder / "recipes" / f"{digest}.json").unlink()
    report = remade(own, world[1])
    assert report.verdict == "not reproduced"
    assert "trained by an engine" in report.reasons[0]
    shutil.rmtree(own.store.bundle_path(digest))
    assert "from a backup of the release store" in remade(own, world[1]).reasons[0]
    with pytest.raises(LookupError, match=r"no version 9 is registered; there are \[1, 2\]"):
        remade(own, world[1], version=9)
    with pytest.raises(LookupError, match="no version 1 is registered; registered models: order_late"):
        reproduce(own.lake, own.store, world[1], "other_model", 1, by="somebody")


def test_what_was_not_trained_here_is_answered_by_where_it_is_from(own: Shops, world: tuple[Shops, Path]) -> None:
    digest = own.store.versions("order_late")[1]
    files = own.store.read_bundle(digest)
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    lineage = Imported(by="ada", source="model.onnx", flavor="onnx", digest="0" * 64, library="onnx 1", summary="graph")
    base = Recalibrated(base_version=1, base_digest=digest, replaced_version=2, replaced_digest=digest)
    imported = msgspec.structs.replace(
        manifest, provenance=msgspec.structs.replace(manifest.provenance, imported=lineage)
    )
    recalibrated = msgspec.structs.replace(manifest, recalibrated=base)
    for version, changed in ((3, imported), (4, recalibrated)):
        stored = own.store.put_bundle({**files, "manifest.json": msgspec.json.encode(changed)})
        own.store.register_version("order_late", version, stored)
    note_origin(own.store, digest, Origin(environment="dev", version=12, by="ada", at="2024-01-01T00:00:00Z"))
    reports = {version: remade(own, world[1], version=version) for version in (1, 3, 4)}
    assert {report.verdict for report in reports.values()} == {"not reproduced"}
    assert "trained in the environment dev" in reports[1].reasons[0]
    assert "there it is version 12" in reports[1].reasons[0]
    assert "ada imported it from model.onnx" in reports[3].reasons[0]
    assert "run `ml-platform reproduce order_late@1`" in reports[4].reasons[0]


def test_another_environment_is_told_and_refused_where_that_is_wanted(own: Shops, world: tuple[Shops, Path]) -> None:
    recipe = read_recipe(own)
    recipe["environment"] |= {"cpu_count": 64, "python": "CPython 3.10.1"}
    recipe["environment"]["packages"] |= {"lightgbm": "3.0.0", "jupyter": "0.1"}
    write_recipe(own, recipe)
    report = remade(own, world[1])
    assert report.verdict == "equal"
    told = {one.what: one.equal for one in report.environment}
    assert told == {"python": False, "processors": True, "package lightgbm": False, "package jupyter": True}
    refused = remade(own, world[1], same_environment=True)
    assert refused.verdict == "not reproduced"
    assert "python (was CPython 3.10.1" in refused.reasons[0]


def test_the_report_is_kept_with_the_version_its_run_and_its_card(own: Shops, world: tuple[Shops, Path]) -> None:
    report = remade(own, world[1])
    assert keep(own.store, own.tracker, report) == ()
    [kept] = reproductions_of(own.store, "order_late", 1)
    assert kept == report
    entry = own.tracker.client.get_model_version("order_late", "1")
    assert entry.tags["reproduced"].startswith("equal: made again on ")
    names = [item.path for item in own.tracker.client.list_artifacts(entry.run_id, "reproductions")]
    assert sorted(name.rpartition(".")[2] for name in names) == ["html", "json", "txt"]
    assert f"reproduced | {kept.line}" in card_markdown(own.store, load_card(own.store, "order_late", 1))
    page = reproduction_html(report)
    assert "<strong>equal</strong>" in page
    assert "<script" not in page
    own.tracker.client.delete_run(entry.run_id)
    [note] = keep(own.store, own.tracker, remade(own, world[1]))
    assert "run in MLflow was deleted" in note
    assert len(reproductions_of(own.store, "order_late", 1)) == 2
