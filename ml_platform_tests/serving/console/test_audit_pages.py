"""Who read what, over HTTP and in the console: for admins and for who manages it."""

from datetime import UTC, datetime

import pytest

from ml_platform.catalogue.document import Column, Entry, store_catalogue
from ml_platform.governance.access.changes import with_grants
from ml_platform.governance.access.policy import Grant
from ml_platform.governance.access.read_audit import ReadAudit
from ml_platform.governance.access.speaker import policy_store
from ml_platform.governance.keys import KeyStore
from ml_platform.lake.access import TableRead
from ml_platform.settings import Settings
from ml_platform_tests.catalogue.entries import catalogue
from ml_platform_tests.serving.conftest import start_server
from ml_platform_tests.serving.releases import publish

NOW = datetime.now(UTC)
TABLES = ("customers", "orders")


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server under a policy, by which the key `ada` manages raw.customers and browses raw.orders."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    publish(settings, 1)
    keys = {}
    for name, role in (("root", "admin"), ("ada", "predict"), ("bo", "predict")):
        keys[name] = KeyStore(settings.keys_dir).create(name, roles=[role])[1]
    grants = [
        Grant(privilege="manage", object="raw.customers", principal="service:ada", at=NOW),
        Grant(privilege="browse", object="raw.orders", principal="service:ada", at=NOW),
        Grant(privilege="select", object="raw.customers", principal="service:bo", at=NOW),
    ]
    policy_store(settings).change(lambda before: with_grants(before, grants), "grant", "x", by="user:root")
    record = ReadAudit(settings, "service:root")
    for table in TABLES:
        for number in range(3):
            record(TableRead("user:<b>eve", f"raw/{table}", number, ("id", "email"), 5, "sql"))
    for _ in range(10):
        record(TableRead("user:mallory", "raw/orders", None, ("id",), None, "sql", is_refused=True))
    columns = (Column(name="email"),)
    entries = [Entry(name=f"raw.{one}", kind="table", table=f"raw/{one}", version=2, columns=columns) for one in TABLES]
    store_catalogue(settings.home, catalogue(entries))
    server = start_server(settings)
    yield server, keys
    server.stop()


def reads(served, key, /, **parameters):
    server, keys = served
    return server.client.get("/audit/reads", params=parameters, headers=bearer(keys[key]))


def test_admins_find_all_and_a_manager_what_they_manage(served):
    everything = reads(served, "root", limit=5).json()
    assert (everything["total"], everything["pages"], len(everything["reads"])) == (16, 4, 5)
    assert [one["rule"] for one in everything["unusual"]] == ["refusals"]
    mine = reads(served, "ada").json()
    assert {one["object"] for one in mine["reads"]} == {"raw.customers"}
    assert (mine["total"], mine["unusual"], mine["is_recorded"]) == (3, [], True)
    assert reads(served, "ada", object="raw/customers", column="email", who="user:<b>eve").json()["total"] == 3
    assert reads(served, "ada", object="raw.customers", column="name").json()["total"] == 0
    assert reads(served, "ada", until="2001-01-01T00:00:00Z").json()["total"] == 0
    assert reads(served, "bo").json()["total"] == 0
    assert reads(served, "root", page=0).status_code == 422


def test_what_is_not_managed_is_refused_in_the_words_for_what_there_is_not(served):
    for who in ("ada", "bo"):
        for name in ("raw.orders", "raw.nothing", "model:nothing", "?"):
            answer = reads(served, who, object=name)
            assert answer.status_code == 403
            assert f"service:{who} lacks the privilege 'manage' on {name}" in answer.json()["error"]["message"]


def test_the_page_shows_reads_with_the_same_form_and_what_is_unusual(served):
    server, keys = served
    page = server.client.get("/audit/console", headers=bearer(keys["root"]), params={"object": "raw.orders"}).text
    assert "user:mallory was refused 10 reads" in page
    assert "user:&lt;b&gt;eve" in page
    assert 'value="raw.orders"' in page
    wrong = server.client.get("/audit/console", headers=bearer(keys["ada"]), params={"since": "May", "page": "9"}).text
    assert "a date or instant was wanted" in wrong
    assert "mallory" not in wrong
    refused = server.client.get("/audit/console", headers=bearer(keys["ada"]), params={"object": "raw.orders"})
    assert refused.status_code == 403


def test_an_entry_shows_who_reads_it_to_who_manages_it_alone(served):
    server, keys = served

    def entry(who, name, query=""):
        return server.client.get(f"/catalogue/raw.{name}{query}", headers=bearer(keys[who])).text

    assert "Show who read it" in entry("ada", "customers")
    page = entry("ada", "customers", "?readers=1")
    assert "user:&lt;b&gt;eve" in page
    assert '<td class="n">15</td>' in page
    for who, name in (("ada", "orders"), ("bo", "customers")):
        page = entry(who, name, "?readers=1")
        assert f"raw.{name}" in page
        assert "Who reads it" not in page
        assert "eve" not in page
    assert "mallory" in entry("root", "orders", "?readers=1")


def test_without_a_policy_reads_are_for_admins(tmp_path):
    settings = Settings(home=tmp_path)
    publish(settings, 1)
    admin, other = (KeyStore(settings.keys_dir).create(role, roles=[role])[1] for role in ("admin", "predict"))
    store_catalogue(settings.home, catalogue([Entry(name="raw.a", kind="table", table="raw/a")]))
    server = start_server(settings)
    try:
        assert server.client.get("/audit/reads", headers=bearer(admin)).json()["reads"] == []
        assert server.client.get("/audit/reads", headers=bearer(other)).status_code == 403
        assert "Who reads it" not in server.client.get("/catalogue/raw.a?readers=1", headers=bearer(other)).text
    finally:
        server.stop()
