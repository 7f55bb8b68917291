"""An imported model is a version like any other: judged on the same holdout, with what is not known of it said."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import polars as pl
import pytest
from click.testing import Result
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from typer.testing import CliRunner

from ml_platform import project as projects
from ml_platform.cli import app
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import publish_view
from ml_platform.inference.batch import score_window
from ml_platform.inference.scorer import Scorer
from ml_platform.model_import.claims import Claims, Folder
from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.judge import ImportResult, import_model
from ml_platform.model_import.readers import read_model
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.source import open_source
from ml_platform.monitoring.drift.detect import detect_drift
from ml_platform.promotion.promote import promote_version, rollback
from ml_platform.promotion.reconcile import versions_of
from ml_platform.registry.card_pages import card_html, card_markdown
from ml_platform.registry.history import describe_origin, origins_of
from ml_platform.registry.model_card import load_card
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.serving.conftest import start_server
from ml_platform_tests.toy_world import DAYS, START, Shops, shop_spec

NAME = "order_late"
CUT = START + timedelta(days=60)
NUMBERS, TEXTS = ["weight", "shop_load__load", "weekday"], ["shop", "channel"]


def rows_before(shops: Shops, until: datetime = CUT) -> tuple[Any, Any]:
    """Features and labels of a world until an instant, as a data scientist has them elsewhere."""
    ref = shops.training_set()
    rows = shops.lake.read(ref.table, version=ref.version).collect().filter(pl.col("ordered_at") <= until)
    frame = rows.select(*NUMBERS, *TEXTS).to_pandas()
    return frame.astype(dict.fromkeys(TEXTS, object)), rows.get_column("late").to_numpy()


@pytest.fixture(scope="module")
def files(trained_shops: tuple[Shops, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A LightGBM model of numbers, and a pipeline of scikit-learn with text, both of rows before the cut."""
    folder, world = tmp_path_factory.mktemp("elsewhere"), trained_shops[0]
    home = shutil.copytree(world.settings.home, tmp_path_factory.mktemp("world") / "home")  # a training set is written
    frame, late = rows_before(Shops(Settings(home=home), world.folder, world.spec, world.views))
    booster = lightgbm.LGBMClassifier(n_estimators=40, verbosity=-1).fit(frame[NUMBERS], late).booster_
    booster.save_model(folder / "booster.txt")
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            ("texts", OneHotEncoder(handle_unknown="ignore"), TEXTS),
        ]
    )
    joblib.dump(make_pipeline(columns, LogisticRegression()).fit(frame, late), folder / "pipeline.joblib")
    return {path.stem: path for path in folder.iterdir()}


def imported(
    shops: Shops,
    path: Path | str,
    *,
    until: datetime | None = CUT,
    trust: bool = False,
    rows: Any = None,
    **declared: Any,
) -> ImportResult:
    declaration = Declaration(**declared)
    source = open_source(str(path), flavor="auto", trust=trust, tracker=shops.tracker, folder=shops.settings.home)
    model, _ = read_model(source, declaration)
    claims = Claims("ann", until, declaration, rows)
    return import_model(shops.settings, Folder(shops.spec, shops.folder, shops.views), source, model, claims)


def test_it_is_judged_after_its_training_and_released(shops: Shops, files: dict[str, Path]) -> None:
    result = imported(shops, files["booster"])
    holdout = result.evaluation.holdout
    assert holdout is not None
    assert holdout.first > CUT
    assert result.decision.promoted, result.decision.reasons
    assert "It was trained elsewhere; who imported it says on no row later than" in result.decision.reasons[-1]
    manifest = shops.store.load_manifest(result.trained.digest)
    lineage = manifest.provenance.imported
    assert lineage is not None
    assert (lineage.by, lineage.flavor, lineage.trained_until_stated) == (
        "ann",
        "lightgbm",
        True,
    )
    assert manifest.provenance.training_rows == 0
    assert datetime.fromisoformat(manifest.provenance.trained_until) == CUT
    [entry] = versions_of(shops.tracker, NAME)
    assert entry.tags["import_source_digest"] == lineage.digest
    assert (entry.tags["gate"], entry.tags["family"]) == ("passed", "imported lightgbm")
    assert "It was not trained here: ann imported it from" in (entry.description or "")
    written = "".join(path.read_text() for path in shops.settings.audit_dir.rglob("*") if path.is_file())
    assert "model import" in written
    assert lineage.digest in written
    for page in (card_markdown, card_html):
        assert f"said to end at {CUT:%Y-%m-%d %H:%M}" in page(shops.store, load_card(shops.store, NAME, 1))
    assert describe_origin(origins_of(shops.store, shops.store.history(NAME)[0])[1]).startswith(
        "imported lightgbm by ann"
    )
    scorer = Scorer.load(shops.store.bundle_path(result.trained.digest))
    assert scorer.explainer() is not None
    frame, _ = rows_before(shops, START + timedelta(days=DAYS))
    own = lightgbm.Booster(model_file=files["booster"]).predict(frame[NUMBERS])
    assert np.allclose(scorer.score(frame[NUMBERS].to_numpy(dtype=float)), own, atol=1e-12)
    with pytest.raises(ImportRefused, match="this file is version 1 of order_late already"):
        imported(shops, files["booster"])


@pytest.mark.slow
def test_without_the_end_of_its_training_a_person_decides(shops: Shops, files: dict[str, Path]) -> None:
    result = imported(shops, files["pipeline"], until=None, trust=True)
    assert not result.decision.promoted
    assert result.decision.reasons[0].startswith("Do not promote by itself: it was trained elsewhere")
    [entry] = versions_of(shops.tracker, NAME)
    assert (entry.tags["gate"], entry.tags["trained_until_stated"]) == ("refused", "false")
    assert "it may have seen every row that was labelled then" in (entry.description or "")
    assert shops.store.endpoint(NAME) is None
    promote_version(shops.settings, NAME, 1, by="bob", reason="looked at")
    endpoint = shops.store.endpoint(NAME)
    assert endpoint is not None
    assert endpoint.targets[0].version == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"until": datetime(2030, 1, 1, tzinfo=UTC)},
            r"no row of the holdout .* is later than --trained-until 2030-01-01",
        ),
        ({"inputs": ["weight", "weekday"]}, "the model has 3 inputs, 2 are named"),
        ({"rename": {"weight": "wait"}}, "unknown feature 'wait'; did you mean 'weight'"),
        ({"inputs": ["weight", "weight", "weekday"]}, "name weight more than once"),
        ({"inputs": ["order_id", "weight", "weekday"]}, "unknown feature 'order_id'"),
        ({"classes": ["a", "b", "c"]}, "the model has 3 classes, the folder's task is binary"),
        ({"positive": "0"}, r"roc_auc on the holdout is 0\.[0-4].*The other way round\? --positive 1\. If 0 does mean"),
        ({"rows": pl.DataFrame({"weight": []})}, "--rows has no rows"),
        ({"rows": pl.DataFrame({"weight": [1.0]})}, r"--rows: feature columns missing .*It has the columns weight"),
    ],
)
def test_what_does_not_fit_registers_nothing(
    shops: Shops, files: dict[str, Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportRefused, match=message):
        imported(shops, files["booster"], **options)
    assert not list(versions_of(shops.tracker, NAME))
    assert shops.store.versions(NAME) == {}


def test_the_other_class_is_named_where_a_model_ranks_the_other_way_round(shops: Shops, tmp_path: Path) -> None:
    frame, late = rows_before(shops)
    numbers = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    joblib.dump(numbers.fit(frame[NUMBERS], np.where(late, "not paid", "paid")), tmp_path / "m")
    with pytest.raises(ImportRefused, match=r"The other way round\? --positive 'not paid'\. If paid does mean true"):
        imported(shops, tmp_path / "m", trust=True, positive="paid")
    assert not list(versions_of(shops.tracker, NAME))
    assert imported(shops, tmp_path / "m", trust=True, positive="not paid").version.version == 1


@pytest.mark.slow
def test_a_model_that_cannot_take_what_the_contract_allows_is_refused(shops: Shops, tmp_path: Path) -> None:
    frame, late = rows_before(shops)
    known = frame.dropna()
    encoder = ColumnTransformer([("texts", OneHotEncoder(), ["shop"])], remainder="drop")
    joblib.dump(make_pipeline(encoder, LogisticRegression()).fit(known, late[known.index]), tmp_path / "m")
    with pytest.raises(
        ImportRefused, match=r"refuses a value of 'shop' that it does not know .*set `allowed: \[shop-0, shop-1"
    ):
        imported(shops, tmp_path / "m", trust=True)
    joblib.dump(LogisticRegression().fit(known[["weight", "weekday"]], late[known.index]), tmp_path / "m")
    with pytest.raises(ImportRefused, match=r"no answer where 'weight' \(input\) is missing.*set `nulls: reject`"):
        imported(shops, tmp_path / "m", trust=True)
    joblib.dump(LogisticRegression().fit(known[["weekday"]] * 0, late[known.index]), tmp_path / "m")
    with pytest.raises(ImportRefused, match=r"answers .* for every one of .* rows of the holdout"):
        imported(shops, tmp_path / "m", trust=True)
    declared = [*(one.model_dump() for one in shops.spec.inputs)]
    declared[1]["allowed"] = [f"shop-{number}" for number in range(8)]
    joblib.dump(make_pipeline(encoder, LogisticRegression()).fit(known, late[known.index]), tmp_path / "m")
    closed = shops.respecified(inputs=declared)
    assert imported(closed, tmp_path / "m", trust=True).version.version == 1


@pytest.fixture
def command(shops: Shops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `models import` in a project that declares the model."""
    project, defs = tmp_path / "project", tmp_path / "project" / "shop" / "defs"
    (defs / NAME).mkdir(parents=True)
    (project / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    (defs / "features").mkdir()
    (defs / "features" / "shop_load.sql").write_text((shops.folder / "views" / "shop_load.sql").read_text())
    for name in ("late.sql", "request_features.py"):
        (defs / NAME / name).write_text((shops.folder / name).read_text())
    declared = shops.spec.model_dump(mode="json", exclude_unset=True)
    declared["split"] = {"holdout": "14 days", "validation": "14 days", "gap": "1 day"}
    declared["lookups"] = [{"view": "shop_load"}]
    component = {"type": "ml_platform.orchestration.TabularModel", "attributes": declared}
    (defs / NAME / "defs.yaml").write_text(json.dumps(component))
    monkeypatch.setenv(projects.VARIABLE, str(project))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["models", "import", *arguments])

    return run


def test_the_command_says_what_is_wrong(command: Callable[..., Result], files: dict[str, Path]) -> None:
    unknown = command("orders", str(files["booster"]))
    assert (unknown.exit_code, "ml-platform new model orders --from raw/<table>" in unknown.output) == (1, True)
    refused = command(NAME, str(files["pipeline"]))
    assert (refused.exit_code, "Nothing was loaded" in refused.output) == (1, True)
    wrong = command(NAME, str(files["booster"]), "--trained-until", "yesterday")
    assert (wrong.exit_code, "wanted an instant such as 2024-05-31T18:00" in wrong.output) == (1, True)
    lost = command(NAME, str(files["booster"]), "--rows", "raw/nothing")
    assert (lost.exit_code, "--rows raw/nothing is neither" in lost.output) == (1, True)


@pytest.mark.slow
def test_the_command_says_what_was_done(command: Callable[..., Result], files: dict[str, Path]) -> None:
    done = command(
        NAME, str(files["booster"]), "--trained-until", f"{CUT:%Y-%m-%d}", "--rows", "training_sets/order_late"
    )
    assert done.exit_code == 0, done.output
    for text in ("LightGBM, 40 trees", "graph and library agree on", "order_late version 1 is registered", "It serves"):
        assert text in done.output


@pytest.mark.slow
def test_the_server_answers_as_the_library_and_rolls_back(
    shops: Shops, trained_shops: tuple[Shops, TrainedModel], files: dict[str, Path]
) -> None:
    imported(shops, files["booster"])
    result = imported(shops, files["pipeline"], until=None, trust=True)
    promote_version(shops.settings, NAME, result.version.version, by="bob", reason="looked at")
    with open_online_store(shops.settings.online_uri) as online:
        publish_view(shops.lake, shops.views["shop_load"], online)
    server = start_server(shops.settings)
    try:
        row = {"shop": "shop-3", "channel": "phone", "weight": 12.5, "ordered_at": "2024-03-30T10:00:00Z"}
        answer = server.client.post(f"/predict/{NAME}", json=row, params={"explain": "true"})
        assert answer.status_code == 422, answer.text  # the pipeline is not explained
        answer = server.client.post(f"/predict/{NAME}", json=row)
        assert answer.status_code == 200, answer.text
        load = shops.lake.read("features/shop_load").filter(pl.col("shop") == "shop-3").sort("event_time").tail(1)
        features = {**row, "weekday": 6, "shop_load__load": load.collect().get_column("load").item()}
        import pandas as pd

        wanted = joblib.load(files["pipeline"]).predict_proba(pd.DataFrame([features])[[*NUMBERS, *TEXTS]])[0, 1]
        assert answer.json()["predictions"][0]["probability"] == pytest.approx(wanted, abs=1e-9)
        rollback(shops.settings, NAME, by="bob", reason="back")
        server.wait_until(lambda client: client.post(f"/predict/{NAME}", json=row).json()["version"] == 1)
        own = lightgbm.Booster(model_file=files["booster"]).predict(pd.DataFrame([features])[NUMBERS])[0]
        answer = server.client.post(f"/predict/{NAME}", json=row)
        assert answer.json()["predictions"][0]["probability"] == pytest.approx(own, abs=1e-9)
    finally:
        server.stop()


KILLED = """
import os, signal, sys
from ml_platform.model_import import judge
from ml_platform.cli import app
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(judge, sys.argv[1], die)
sys.argv = ["ml-platform", "models", "import", *sys.argv[2:]]
app()
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["register", "promote"])
def test_a_kill_at_any_step_leaves_registry_and_releases_sound(
    command: Callable[..., Result], shops: Shops, files: dict[str, Path], at: str
) -> None:
    arguments = [NAME, str(files["booster"]), "--trained-until", f"{CUT:%Y-%m-%d}"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, at, *arguments], check=False, capture_output=True, env=os.environ
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    versions = {int(one.version): one.tags["bundle_digest"] for one in versions_of(shops.tracker, NAME)}
    assert shops.store.versions(NAME) == versions
    assert shops.store.endpoint(NAME) is None
    for digest in versions.values():
        Scorer.load(shops.store.bundle_path(digest))
    again = command(*arguments)
    if at == "promote":  # it is registered, and named
        assert "this file is version 1 of order_late already" in again.output
        promote_version(shops.settings, NAME, 1, by="ann", reason="the import was cut short")
    else:
        assert again.exit_code == 0, again.output
    endpoint = shops.store.endpoint(NAME)
    assert endpoint is not None
    assert endpoint.targets[0].version == 1


@pytest.mark.slow
def test_batch_scores_and_drift_are_those_of_the_version(shops: Shops, files: dict[str, Path]) -> None:
    imported(shops, files["booster"])
    last = START + timedelta(days=DAYS)
    scored = score_window(
        shops.lake, shops.spec, shops.folder, shops.views, shops.store, last - timedelta(days=14), last
    )
    assert scored.rows > 500
    rows = shops.lake.read(f"predictions/{NAME}").collect()
    assert rows.get_column("model_version").unique().to_list() == [1]
    own = lightgbm.Booster(model_file=files["booster"]).predict(rows.select(NUMBERS).to_numpy().astype(float))
    assert np.allclose(rows.get_column("score").to_numpy(), own, atol=1e-12)
    report = detect_drift(shops.lake, shop_spec(monitoring={"min_rows": 100}), shops.store, shops.settings)
    assert report.verdict != "not judged"
    assert {one.column for one in report.columns} == set(NUMBERS)


@pytest.mark.slow
def test_a_model_of_mlflow_says_what_made_it(shops: Shops, files: dict[str, Path]) -> None:
    import mlflow

    frame, _ = rows_before(shops)
    experiment = shops.tracker.experiment_id("elsewhere")
    with mlflow.start_run(experiment_id=experiment):
        mlflow.log_input(mlflow.data.from_pandas(frame[NUMBERS], name="orders_2023"))
        mlflow.lightgbm.log_model(
            lightgbm.Booster(model_file=files["booster"]),
            name="model",
            signature=mlflow.models.infer_signature(frame[NUMBERS]),
            pip_requirements=["lightgbm"],
            registered_model_name="elsewhere",
        )
    with pytest.raises(ImportRefused, match="models:/elsewhere/7 cannot be fetched from MLflow"):
        imported(shops, "models:/elsewhere/7")
    result = imported(shops, "models:/elsewhere/1")
    lineage = result.trained.imported
    assert lineage is not None
    assert (lineage.source, lineage.flavor) == ("models:/elsewhere/1", "lightgbm")
    assert "data sets: orders_2023 (digest" in lineage.origin
