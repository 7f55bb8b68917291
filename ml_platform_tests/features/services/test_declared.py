"""Feature services from their YAML to what the terminal shows: declared, published, looked up, withdrawn."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.pushed_rows import view_schema
from ml_platform.features.services.declare import service_document
from ml_platform.features.views.load import load_views
from ml_platform.governance.access.changes import with_grants
from ml_platform.governance.access.policy import Grant
from ml_platform.governance.access.published import FILE, Protections
from ml_platform.governance.access.store import PolicyStore
from ml_platform.governance.keys import KeyStore
from ml_platform.registry.feature_services import FeatureServiceStore
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec.feature_service import FeatureServiceSpec
from ml_platform.spec_yaml import check_project, check_services
from ml_platform.yaml_documents import SpecError

VIEW = """/*
description: How busy a shop is.
owner: shops@example.com
entity: [shop]
ttl: 2 hours
columns:
  load: {type: number, description: Orders that wait.}
  mood: {type: string, description: How the staff is.}
*/
SELECT shop, seen_at AS event_time, load, mood FROM raw.loads
"""
SERVICE = """type: ml_platform.orchestration.FeatureService
attributes:
  name: counter
  description: For the screen at the counter.
  owner: team:web
  views:
    - shop_load
    - {view: shop_load, name: other, features: [load], keys: {shop: other_shop}}
  inputs:
    - {name: weight, type: number, minimum: 0, default: 2.5}
  request_features: request_features.py
"""
REQUEST_FEATURES = """import polars as pl

from ml_platform.features import RequestFeature

REQUEST_FEATURES = {"heavy": RequestFeature(pl.col("weight") > 2)}
"""
Run = Callable[..., Result]


@pytest.fixture
def defs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's definitions: a view and a service."""
    defs = tmp_path / "shops" / "defs"
    (defs / "features").mkdir(parents=True)
    (defs / "counter").mkdir()
    (defs / "features" / "shop_load.sql").write_text(VIEW)
    (defs / "counter" / "defs.yaml").write_text(SERVICE)
    (defs / "counter" / "request_features.py").write_text(REQUEST_FEATURES)
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shops"\n')
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(tmp_path))
    return defs


@pytest.fixture
def run(defs: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    return lambda *arguments: CliRunner().invoke(app, ["features", *arguments])


def fill(defs: Path, settings: Settings) -> None:
    """Put a row of now and an old one into the online store, as publishing does."""
    view = load_views(defs / "features")["shop_load"]
    now = datetime.now(UTC)
    rows = [("A", now - timedelta(minutes=1), 7.0, "calm"), ("B", now - timedelta(days=1), 9.0, None)]
    dtypes: dict[str, Any] = {"shop": pl.String, "event_time": pl.Datetime("us", "UTC"), "load": pl.Float64}
    frame = pl.DataFrame(rows, schema=dtypes | {"mood": pl.String}, orient="row")
    with open_online_store(settings.online_uri) as store:
        schema = view_schema(view, frame.schema)
        store.write(view.name, view.entity, frame, view_hash=view.hash, schema=schema)


def columns(defs: Path) -> dict[str, Any]:
    return {name: view.columns.keys() for name, view in load_views(defs / "features").items()}


def test_a_service_is_published_looked_up_and_withdrawn(run: Run, defs: Path, settings: Settings) -> None:
    assert "counter: shop_load, other; not published yet" in run("services").output
    assert run("publish").output == "counter: revision 1\n"
    assert run("publish", "counter").output == "counter: already revision 1\n"
    fill(defs, settings)
    shown = run("lookup", "counter", "shop=A", "other_shop=B")
    assert shown.exit_code == 0, shown.output
    for words in ("shop_load: present, of ", "shop_load__load  7.0", "other: expired, of ", "heavy  True"):
        assert words in shown.output
    found = json.loads(run("lookup", "counter", "shop=X", "other_shop=", "weight=1", "--json").output)
    assert found["features"]["heavy"] is False
    assert [one["status"] for one in found["views"].values()] == ["unknown", "null_key"]
    text = (defs / "counter" / "defs.yaml").read_text()
    (defs / "counter" / "defs.yaml").write_text(text.replace("features: [load]", "features: [mood]"))
    assert "declared differently now: publish it again" in run("services").output
    assert run("publish").output == "counter: revision 2\n"
    (defs / "counter" / "defs.yaml").unlink()
    assert "no longer declared: withdraw it" in run("services").output
    assert run("withdraw", "counter").output == "counter: withdrawn\n"
    assert run("withdraw", "counter").exit_code == 1
    (defs / "counter" / "defs.yaml").write_text(text)
    assert run("publish").output == "counter: revision 3\n"  # numbers are never given twice


def test_a_view_is_looked_up_as_of_an_instant(run: Run, defs: Path, settings: Settings) -> None:
    fill(defs, settings)
    then = (datetime.now(UTC) - timedelta(hours=23)).isoformat()
    found = json.loads(run("lookup", "shop_load", "shop=B", "--as-of", then, "--json").output)
    assert (found["features"]["load"], found["views"]["shop_load"]["status"]) == (9.0, "present")
    found = json.loads(run("lookup", "shop_load", "shop=A", "--as-of", then, "--json").output)
    assert (found["features"]["load"], found["views"]["shop_load"]["status"]) == (None, "later")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope", "a=1"), "no feature view or service 'nope'; there are: counter, shop_load"),
        (("shop_load", "shop"), "wanted shop=…, each once, found 'shop'"),
        (("shop_load", "shop=A", "day=1"), "found 'day=1'"),
        (("counter", "shop=A"), "wanted other_shop=… too; `other_shop=` is null"),
        (("counter", "shop=A", "other_shop=B", "weight=heavy"), "weight: wanted a finite number, found 'heavy'"),
        (("counter", "shop=A", "other_shop=B", "weight=-1"), "row 0, weight: wanted a finite number of at least 0"),
        (("shop_load", "shop=A", "--as-of", "noon"), "--as-of: wanted a timestamp"),
    ],
)
def test_what_cannot_be_looked_up_is_said(
    run: Run, defs: Path, settings: Settings, arguments: tuple[str, ...], words: str
) -> None:
    fill(defs, settings)
    run("publish")
    done = run("lookup", *arguments)
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("    - shop_load\n", "    - shop_lod\n", 7, "did you mean 'shop_load'?"),
        ("features: [load]", "features: [lode]", 8, "did you mean 'load'?"),
        ("name: counter", "name: shop_load", 1, "already the name of a feature view"),
        ("request_features.py", "other.py", 11, "no file 'other.py' beside defs.yaml"),
        ("name: other, ", "", 6, "['shop_load'] more than once"),
        ("pinned", "pinned", 0, ""),
    ],
)
def test_mistakes_in_yaml_name_their_line(defs: Path, old: str, new: str, line: int, words: str) -> None:
    path = defs / "counter" / "defs.yaml"
    path.write_text(path.read_text().replace(old, new))
    if not words:
        assert not check_project(defs, columns(defs))
        assert [spec.name for _, spec in check_services(defs, columns(defs))] == ["counter"]
        return
    with pytest.raises(SpecError) as caught:
        check_project(defs, columns(defs))
    [problem] = caught.value.problems
    assert words in problem.message.lower()
    assert problem.line == line


def test_a_name_stands_for_one_thing(defs: Path) -> None:
    (defs / "counter" / "request_features.py").write_text(REQUEST_FEATURES.replace("heavy", "weight"))
    [(path, spec)] = check_services(defs, columns(defs))
    with pytest.raises(ValueError, match=r"\['weight'\] are inputs and request features"):
        service_document(spec, path.parent, load_views(defs / "features"))


def test_a_change_of_a_view_is_another_revision(defs: Path, settings: Settings) -> None:
    [(path, spec)] = check_services(defs, columns(defs))
    store = FeatureServiceStore(ReleaseStore(settings.releases_dir))

    def published() -> int:
        document = service_document(spec, path.parent, load_views(defs / "features"))
        return store.publish(document, by="pytest").revision

    assert [published(), published()] == [1, 1]
    (defs / "features" / "shop_load.sql").write_text(VIEW.replace("2 hours", "3 hours"))
    assert published() == 2
    assert isinstance(spec, FeatureServiceSpec)


def test_publishing_under_a_policy_says_what_views_mask(
    run: Run, defs: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("publish").exit_code == 0
    path = settings.access_dir / FILE
    assert not path.exists()
    monkeypatch.setenv("ML_PLATFORM_KEY", KeyStore(settings.keys_dir).create("root", roles=["admin"])[1])
    grant = Grant(privilege="use_feature", object="platform", principal="user:bob", at=datetime.now(UTC))
    PolicyStore(settings.access_dir).change(lambda document: with_grants(document, [grant]), "", "", by="x")
    published = run("publish")
    assert published.exit_code == 0, published.output
    view = msgspec.json.decode(path.read_bytes(), type=Protections).tables["features/shop_load"]
    assert set(view.columns) == {"shop", "event_time", "load", "mood"}
