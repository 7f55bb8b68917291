"""SQL over HTTP: keys, grants, masks, limits, JSON and Arrow, and what the audit log says of it."""

import json
import time
from datetime import UTC, datetime

import msgspec
import polars as pl
import pyarrow.ipc
import pytest
from starlette.testclient import TestClient

from ml_platform.governance.access.changes import with_grants, without_grants
from ml_platform.governance.access.definitions import Definitions
from ml_platform.governance.access.policy import Grant
from ml_platform.governance.access.speaker import policy_store
from ml_platform.governance.keys import KeyStore
from ml_platform.lake.storage.tables import Lake
from ml_platform.lineage.graph import ColumnGraph, Edge, Node
from ml_platform.scoring.sql_predict import PredictFunctions
from ml_platform.settings import Settings
from ml_platform.spec.protection import Protection, Rule
from ml_platform.sql_server.answers import ARROW
from ml_platform.sql_server.app import SqlServer
from ml_platform.sql_server.callers import Callers
from ml_platform.sql_server.limits import Limits
from ml_platform_tests.lake.guarded_world import leaks, make_lake

ADA = "service:ada"
PEOPLE = Protection(
    row_filter=Rule(sql="city = 'Paris'"), masks={"name": Rule(sql="left(name, 1) || '***'")}, tags={"salary": ("pii",)}
)
GRAPH = ColumnGraph([Edge(Node("raw.people", "salary"), Node("raw.copy", "age"), "copy")])
SLOW = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range * b.range % 7 = 3"


def server_of(settings, **options):
    callers = Callers(settings, lambda: Definitions(protections={"raw/people": PEOPLE}), lambda: GRAPH)
    server = SqlServer(
        settings,
        callers=callers,
        functions=lambda lake: PredictFunctions(settings, dict, lake.guard),
        overlays=lambda _: lambda _table, _version: None,
        **options,
    )
    return TestClient(server.app(), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    make_lake(home)
    return Settings(home=home)


@pytest.fixture(scope="module")
def keys(settings):
    store = KeyStore(settings.keys_dir)
    texts = {name: store.create(name, roles=["predict"])[1] for name in ("ada", "eve")}
    texts["root"] = store.create("root", roles=["admin"])[1]
    granted = [
        Grant(privilege="select", object=name, principal=ADA)
        for name in ("raw.people.id", "raw.people.name", "raw.people.city", "raw.people.age", "raw.open")
    ]
    now = datetime.now(UTC)
    policy_store(settings).change(
        lambda document: msgspec.structs.replace(with_grants(document, granted), started=now), "granted", "", by="root"
    )
    return {name: {"authorization": f"Bearer {text}"} for name, text in texts.items()}


@pytest.fixture
def client(settings, keys):
    with server_of(settings, limits=Limits(seconds=60, rows=1000)) as client:
        yield client


def ask(client, key, sql, arrow=False, **more):
    headers = dict(key) | ({"accept": ARROW} if arrow else {})
    return client.post("/sql", json={"sql": sql, **more}, headers=headers)


def test_answers_as_json_what_is_granted(client, keys):
    answer = ask(client, keys["ada"], "SELECT id, name, age FROM raw.people ORDER BY id")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "columns": [
            {"name": "id", "type": "Int64"}, {"name": "name", "type": "String"}, {"name": "age", "type": "Int64"},
        ],
        "rows": [[1, "S***", 30], [2, "S***", 40]],
        "row_count": 2,
        "truncated": False,
    }  # fmt: skip
    assert leaks(ask(client, keys["root"], "FROM raw.people").text)  # the values are there to be seen


def test_answers_as_a_stream_of_arrow(client, keys):
    answer = ask(client, keys["ada"], "SELECT name, age FROM raw.people ORDER BY age", arrow=True)
    assert answer.headers["content-type"] == ARROW
    with pyarrow.ipc.open_stream(answer.content) as reader:
        assert reader.read_all().to_pydict() == {"name": ["S***", "S***"], "age": [30, 40]}
    assert pl.read_ipc_stream(answer.content).height == 2
    empty = ask(client, keys["ada"], "SELECT name FROM raw.people WHERE false", arrow=True)
    assert pl.read_ipc_stream(empty.content).schema == {"name": pl.String}


@pytest.mark.parametrize(
    ("sql", "status"),
    [
        ("FROM hidden.vault", 404), ("FROM raw.ghost", 404), ("SELECT salary FROM raw.people", 422),
        ("FROM read_parquet('/etc/passwd')", 422), ("FROM duckdb_views", 422), ("DROP TABLE raw.people", 422),
        ("FROM raw.letters", 404), ('FROM quarantine."raw/people"', 404),
        ("SELECT CAST(city AS INT) FROM raw.people", 422),
        ("SELECT predict('any', o) FROM raw.open o", 403), ("SELECT current_setting('allowed_paths')", 422),
        ("COPY (SELECT 1) TO '/tmp/x'", 422), ("SELECT", 422), ("FROM raw.people AT (VERSION => 99)", 404),
    ],
)  # fmt: skip
@pytest.mark.parametrize("arrow", [False, True])
def test_refuses_what_is_not_granted(client, keys, sql, status, arrow):
    answer = ask(client, keys["ada"], sql, arrow=arrow)
    assert answer.status_code == status, answer.text
    assert not leaks(answer.text)


def test_nobody_without_a_key_and_nobody_without_a_grant(client, keys):
    assert ask(client, {}, "SELECT 1").status_code == 401
    assert ask(client, {"authorization": "Bearer mlp_000000000000_" + "a" * 43}, "SELECT 1").status_code == 401
    assert ask(client, keys["eve"], "FROM raw.people").status_code == 404
    assert client.get("/tables").status_code == 401
    assert client.get("/tables", headers=keys["eve"]).json() == {"tables": []}
    told = client.get("/tables", headers=keys["ada"]).json()["tables"]
    assert [(one["name"], [column["name"] for column in one["columns"]]) for one in told] == [
        ("raw.open", ["id", "x"]), ("raw.people", ["id", "name", "city", "age"]),
    ]  # fmt: skip


def test_a_revoked_grant_counts_at_once(settings, keys, client):
    one = [Grant(privilege="select", object="raw.letters", principal=ADA)]
    store = policy_store(settings)
    store.change(lambda document: with_grants(document, one), "granted", "", by="root")
    deadline = time.monotonic() + 60
    while ask(client, keys["ada"], "SELECT id FROM raw.letters").status_code != 200:
        assert time.monotonic() < deadline
    store.change(lambda document: without_grants(document, ["select"], "raw.letters", ADA), "revoked", "", by="root")
    while ask(client, keys["ada"], "SELECT id FROM raw.letters").status_code == 200:
        assert time.monotonic() < deadline


def test_tags_that_flow_to_a_column_mask_it(settings, keys, client):
    lake = Lake(settings.lake_uri)
    lake.append("raw/copy", pl.DataFrame({"id": [1], "age": [77777]}))
    policy_store(settings).change(
        lambda document: with_grants(document, [Grant(privilege="select", object="raw.copy", principal=ADA)]),
        "granted", "", by="root",
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while (answer := ask(client, keys["ada"], "FROM raw.copy")).status_code != 200:
        assert time.monotonic() < deadline
    assert answer.json()["rows"] == [[1, None]]
    assert ask(client, keys["root"], "FROM raw.copy").json()["rows"] == [[1, 77777]]


def test_versions_dates_and_limits(client, keys):
    first = ask(client, keys["ada"], "SELECT DISTINCT name FROM raw.people", versions={"raw.people": 0})
    assert first.json()["rows"] == [["O***"]]
    assert ask(client, keys["ada"], "FROM raw.open", as_of="2001-01-01").status_code == 404
    assert ask(client, keys["ada"], "FROM raw.open", as_of="yesterday").status_code == 422
    two = ask(client, keys["ada"], "FROM raw.open", limit=2).json()
    assert (two["row_count"], two["truncated"]) == (2, True)
    assert ask(client, keys["ada"], "FROM range(5000)").json()["row_count"] == 1000
    whole = ask(client, keys["ada"], "FROM range(5000)", arrow=True)
    assert pl.read_ipc_stream(whole.content).height == 1000


@pytest.mark.parametrize("arrow", [False, True])
def test_a_query_that_takes_too_long_is_ended(settings, keys, arrow):
    with server_of(settings, limits=Limits(seconds=0.5)) as client:
        answer = ask(client, keys["ada"], SLOW, arrow=arrow)
        assert (answer.status_code, answer.json()["error"]["code"]) == (408, "time_limit")
        assert ask(client, keys["ada"], "SELECT 1").status_code == 200  # its turn was given back


def test_a_query_that_needs_too_much_memory_is_ended(settings, keys):
    with server_of(settings, limits=Limits(memory="50MB")) as client:
        answer = ask(client, keys["ada"], "SELECT list(a.range || 'x') FROM range(100000000) a")
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "memory_limit")


def test_bodies_that_are_none(client, keys):
    assert client.post("/sql", content="SELECT 1", headers=keys["ada"]).status_code == 415
    json_type = {"content-type": "application/json", **keys["ada"]}
    assert client.post("/sql", content="{", headers=json_type).status_code == 400
    assert client.post("/sql", content='{"sql": 1}', headers=json_type).status_code == 400
    assert client.post("/sql", content=json.dumps({"sql": "x" * 2_000_000}), headers=json_type).status_code == 413
    assert ask(client, keys["ada"], "SELECT 1", limit=-1).status_code == 422
    assert client.get("/sql", headers=keys["ada"]).status_code == 405


def test_other_hosts_are_refused(client, keys):
    headers = {**keys["ada"], "host": "evil.example"}
    assert client.post("/sql", json={"sql": "SELECT 1"}, headers=headers).status_code == 421


def test_the_audit_log_says_who_read_what(settings, keys, client):
    ask(client, keys["ada"], "SELECT name FROM raw.people -- SECRETcomment")
    ask(client, keys["ada"], "FROM hidden.vault", arrow=True)
    ask(client, keys["ada"], "SELECT id, x FROM raw.open", arrow=True)
    lines = [json.loads(line) for path in settings.audit_dir.glob("*.jsonl") for line in path.read_text().splitlines()]
    told = [
        (line.get("name"), line.get("status"), line.get("rows"), line.get("detail"))
        for line in lines
        if line["action"] == "sql"
    ]
    assert ("ada", 200, 2, "raw/people@2 (name)") in told
    assert ("ada", 404, 0, "hidden/vault@refused ()") in told
    assert ("ada", 200, 4, "raw/open@0 (id, x)") in told
    assert not any("SECRETcomment" in str(one) for one in told)


def test_without_keys_it_is_open_and_without_a_policy_for_admins(tmp_path):
    settings = Settings(home=tmp_path)
    Lake(settings.lake_uri).append("raw/open", pl.DataFrame({"id": [1]}))
    with server_of(settings) as client:
        assert ask(client, {}, "FROM raw.open").json()["rows"] == [[1]]
        store = KeyStore(settings.keys_dir)
        (_, one), (_, root) = store.create("one", roles=["predict"]), store.create("root", roles=["admin"])
        deadline = time.monotonic() + 60
        while ask(client, {}, "FROM raw.open").status_code != 401:
            assert time.monotonic() < deadline
        assert ask(client, {"x-api-key": one}, "FROM raw.open").status_code == 403
        assert ask(client, {"x-api-key": root}, "FROM raw.open").status_code == 200
