"""Look-ups and explanations under an access policy: what is masked is null, hidden rows are refused, all else stays."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_platform.governance.access.changes import with_grants, with_tag
from ml_platform.governance.access.policy import Document, Grant, Policy, TagChange
from ml_platform.governance.access.principals import Principal
from ml_platform.governance.access.published import (
    Protections,
    ProtectionStore,
    PublishedTable,
    flows_into_views,
    write_protections,
)
from ml_platform.governance.access.store import PolicyStore
from ml_platform.governance.keys import KeyStore
from ml_platform.lineage.graph import ColumnGraph, Edge, Node
from ml_platform.registry.manifest import Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.access.masking import mask_details
from ml_platform.serving.prediction.responses import Prediction
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer, start_server
from ml_platform_tests.serving.feature_services import ROTATION, SERVICE, WEATHER, fill, publish_service
from ml_platform_tests.serving.prediction.test_details import boosted
from ml_platform_tests.serving.releases import MODEL, ROW, bundle, fill_online_store
from ml_platform_tests.serving.releases import VIEWS as MODEL_VIEWS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FLIGHT = {"origin": "EWR", "aircraft": "N1", "departure": "2013-07-05T12:00:00Z"}
ADA = Principal("ada", "user", frozenset({"staff"}))


def view(*columns: str, **protection: Any) -> PublishedTable:
    return PublishedTable(columns=("event_time", *columns), event_time="event_time", **protection)


WEATHER_VIEW = view("origin", "temp", "visib", masks={"temp": ("service:exempt",)})
ROTATION_VIEW = view("tailnum", "day", "legs", "temp", row_filter=("service:exempt", "service:half"))


def grants(*principals: str, **options: Any) -> list[Grant]:
    return [
        Grant(privilege=privilege, object="platform", principal=principal, at=NOW, **options)
        for principal in principals
        for privilege in ("use_feature", "explain", "predict", "browse")
    ]


@pytest.fixture(scope="module")
def tokens(module_settings: Settings) -> dict[str, str]:
    keys = KeyStore(module_settings.keys_dir)
    roles = {"root": ["admin"], "exempt": ["explain"], "half": ["explain"], "app": ["explain"]}
    tokens = {name: keys.create(name, roles=own)[1] for name, own in roles.items()}
    policy = PolicyStore(module_settings.access_dir)
    policy.change(
        lambda document: with_grants(document, grants("service:exempt", "service:half", "service:app")), "", "", by="x"
    )
    model_views = {f"features/{name}": view(*keys, *features) for name, (keys, features, _) in MODEL_VIEWS.items()}
    model_views["features/origin_weather"] = view(
        "origin", *MODEL_VIEWS["origin_weather"][1], masks={"temp": ("service:exempt",)}
    )
    model_views["features/aircraft_rotation"] = view(
        "tailnum", *MODEL_VIEWS["aircraft_rotation"][1], row_filter=("service:exempt", "service:half")
    )
    tables = {f"features/{WEATHER}": WEATHER_VIEW, f"features/{ROTATION}": ROTATION_VIEW, **model_views}
    write_protections(module_settings.access_dir, Protections(tables))
    return tokens


@pytest.fixture(scope="module")
def server(module_settings: Settings, tokens: dict[str, str]) -> Iterator[Server]:
    fill(module_settings)
    fill_online_store(module_settings)
    publish_service(module_settings)
    store = ReleaseStore(module_settings.releases_dir)
    digest = store.put_bundle(bundle(1, graph=boosted()[1], family="lightgbm"))
    store.publish(MODEL, [Target(version=1, digest=digest, share=1.0)], reason="for a test", by="pytest")
    server = start_server(module_settings)
    yield server
    server.stop()


@pytest.fixture
def ask(client: httpx.Client, tokens: dict[str, str]) -> Callable[..., Any]:
    def ask(who: str, path: str, body: Any, status: int = 200) -> Any:
        answer = client.post(path, json=body, headers=bearer(tokens[who]))
        assert answer.status_code == status, answer.text
        return answer.json()

    return ask


def test_a_masked_feature_is_null_and_said_to_be(ask: Callable[..., Any]) -> None:
    path, body = f"/features/{WEATHER}/lookup", {"origin": "EWR"}
    for who in ("root", "exempt"):
        answer = ask(who, path, body)
        assert answer["rows"][0]["features"] == {"temp": 39.5, "visib": None}
        assert "masked" not in answer
    answer = ask("app", path, body)
    assert answer["rows"][0]["features"] == {"temp": None, "visib": None}
    assert answer["rows"][0]["views"][WEATHER]["status"] == "present"
    assert answer["masked"] == ["temp"]
    assert ask("app", f"{path}?format=columns", body)["features"] == {"temp": [None], "visib": [None]}


def test_other_protocols_mask_the_same(ask: Callable[..., Any]) -> None:
    body = {"entities": {"origin": ["EWR"]}, "features": [f"{WEATHER}:temp"]}
    _, shown = ask("exempt", "/get-online-features", body)["results"]
    assert shown["values"] == [39.5]
    answer = ask("half", "/get-online-features", body)
    assert answer["results"][1]["values"] == [None]
    assert answer["results"][1]["statuses"] == ["NULL_VALUE"]
    assert answer["metadata"]["masked"] == [f"{WEATHER}__temp"]
    path, rows = f"/serving-endpoints/{SERVICE}/invocations", {"dataframe_records": [FLIGHT]}
    [shown] = ask("exempt", path, rows)["outputs"]
    answer = ask("half", path, rows)
    [masked] = answer["outputs"]
    assert (shown["temp"], masked["temp"], shown["legs"], masked["legs"]) == (39.5, None, 2, 2)
    assert answer["masked"] == ["temp"]
    service = ask("half", f"/features/{SERVICE}/lookup", FLIGHT)
    assert service["masked"] == [f"{WEATHER}__temp"]
    assert service["rows"][0]["features"][f"{WEATHER}__temp"] is None
    feast = ask("half", "/get-online-features", {
        "entities": {name: [value] for name, value in FLIGHT.items()}, "feature_service": SERVICE,
    })  # fmt: skip
    assert 39.5 not in [value for column in feast["results"] for value in column["values"]]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/features/{ROTATION}/lookup", {"tailnum": "N1", "day": 5}),
        (f"/features/{SERVICE}/lookup", FLIGHT),
        (f"/serving-endpoints/{SERVICE}/invocations", {"dataframe_records": [FLIGHT]}),
        ("/get-online-features", {"entities": {"tailnum": ["N1"], "day": [5]}, "features": [f"{ROTATION}:legs"]}),
    ],
)
def test_a_view_of_which_rows_are_hidden_is_refused(ask: Callable[..., Any], path: str, body: Any) -> None:
    ask("root", path, body)
    ask("half", path, body)
    refused = str(ask("app", path, body, 403))
    assert f"a row filter of features.{ROTATION} hides rows from service:app" in refused
    assert "ml-platform sql" in refused


def test_explanations_hide_features_of_masked_columns_and_of_filtered_views(ask: Callable[..., Any]) -> None:
    path = f"/predict/{MODEL}?features=true&explain=true"
    whole, half, app = (ask(who, path, ROW) for who in ("exempt", "half", "app"))
    [shown], [masked], [least] = (one["predictions"] for one in (whole, half, app))
    assert shown["probability"] == masked["probability"] == least["probability"]  # by the real values
    assert shown["explanation"]["raw_score"] == masked["explanation"]["raw_score"]
    assert "masked" not in whole
    assert half["masked"] == ["origin_weather__temp"]
    rotation = {f"aircraft_rotation__{name}" for name in MODEL_VIEWS["aircraft_rotation"][1]}
    seen = shown["features"].keys()
    assert set(app["masked"]) == ({"origin_weather__temp"} | rotation) & seen
    for part in ("features", "explanation"):
        own = [one[part] if part == "features" else one[part]["contributions"] for one in (shown, masked, least)]
        assert own[0]["origin_weather__temp"] is not None
        assert {name for name, value in own[1].items() if value != own[0][name]} == {"origin_weather__temp"}
        assert all(own[2][name] is None for name in app["masked"])
        assert own[0].keys() == own[2].keys()


def test_a_view_that_nobody_published_is_refused_until_it_is(settings: Settings, serve: Callable[..., Server]) -> None:
    fill(settings)
    keys = KeyStore(settings.keys_dir)
    (_, root), (_, app) = keys.create("root", roles=["admin"]), keys.create("app", roles=["predict"])
    server = serve(settings)

    def status(token: str) -> int:
        path = f"/features/{WEATHER}/lookup"
        return server.client.post(path, json={"origin": "EWR"}, headers=bearer(token)).status_code

    assert status(app) == 200  # no policy, nothing is masked
    policy = PolicyStore(settings.access_dir)
    policy.change(lambda document: with_grants(document, grants("service:app")), "", "", by="x")
    server.wait_until(lambda _client: status(app) == 403)
    assert status(root) == 200
    path = write_protections(settings.access_dir, Protections({f"features/{WEATHER}": WEATHER_VIEW}))
    server.wait_until(lambda _client: status(app) == 200)
    path.write_text('{"tables": ')
    server.wait_until(lambda _client: status(app) == 403)


def decided(folder: Path, tables: dict[str, PublishedTable], document: Document, who: Principal = ADA) -> Any:
    edges = [
        Edge(Node("raw.people", "mail"), Node("features.a", "Domain"), "projection"),
        Edge(Node("raw.people", "mail"), Node("features.a", "count"), "join"),
    ]
    write_protections(folder, Protections(tables, flows_into_views(ColumnGraph(edges))))
    return ProtectionStore(folder).access(Policy(document, now=NOW), who, "a")


def test_tags_flow_and_are_lifted_by_a_grant_or_a_removal(tmp_path: Path) -> None:
    tables = {"features/a": view("domain", "count"), "raw/people": PublishedTable(tags={"mail": ("pii",)})}
    document = Document(started=NOW)
    assert decided(tmp_path, tables, document).hidden == {"domain"}
    assert decided(tmp_path, tables, document, Principal("root", "user", is_admin=True)).hidden == frozenset()
    on_tag = Grant(privilege="select", object="tag:pii", principal="group:staff", at=NOW)
    assert decided(tmp_path, tables, with_grants(document, [on_tag])).hidden == frozenset()
    removed = TagChange(object="features.a.domain", tag="pii", removed=True, by="x", at=NOW, reason="counts")
    assert decided(tmp_path, tables, with_tag(document, removed)).hidden == frozenset()
    given = TagChange(object="raw.people.mail", tag="pii", by="x", at=NOW)  # by a command alone
    own = {"features/a": view("domain", "count")}
    assert decided(tmp_path, own, document).hidden == frozenset()
    assert decided(tmp_path, own, with_tag(document, given)).hidden == {"domain"}


def test_a_denied_column_is_hidden_and_so_is_one_that_came_later(tmp_path: Path) -> None:
    tables = {"features/a": view("domain", "count")}
    denial = Grant(privilege="select", object="features.a.count", principal="user:ada", denies=True, at=NOW)
    access = decided(tmp_path, tables, with_grants(Document(started=NOW), [denial]))
    assert access.hidden == {"count"}
    assert [access.hides(name) for name in ("Count", "domain", "later")] == [True, False, True]
    masked = {"features/a": view("domain", masks={"event_time": ()})}
    assert decided(tmp_path, masked, Document(started=NOW)).hides_time


def test_hidden_contributions_come_last_and_nothing_else_changes() -> None:
    explanation = {"base": 1.0, "raw_score": 6.0, "contributions": {"a": 3.0, "b": 2.0}}
    seen = {"a": 1, "b": 2}
    prediction = Prediction(prediction=1.0, features=seen, explanation=explanation)
    assert mask_details([prediction, Prediction(prediction=2.0)], frozenset({"a", "z"})) == ["a"]
    assert prediction.features == {"a": None, "b": 2}
    assert seen == {"a": 1, "b": 2}  # the log has them as they are
    assert list(prediction.explanation["contributions"].items()) == [("b", 2.0), ("a", None)]  # type: ignore[index]
