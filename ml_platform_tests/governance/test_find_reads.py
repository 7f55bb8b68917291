"""Questions to the record of reads: what is found, and for whom."""

from datetime import UTC, datetime, timedelta

import pytest

from ml_platform.governance.access.changes import with_grants
from ml_platform.governance.access.policy import Grant
from ml_platform.governance.access.principals import Principal
from ml_platform.governance.access.read_audit import ReadAudit
from ml_platform.governance.access.speaker import policy_store
from ml_platform.governance.audit import AuditLog, Entry
from ml_platform.governance.find_reads import find_reads
from ml_platform.governance.recorded_reads import ReadQuery
from ml_platform.lake.access import TableRead
from ml_platform.settings import Settings

ADA = Principal("ada", "user")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    made = Settings(home=tmp_path_factory.mktemp("home"))
    record = ReadAudit(made, "user:root")
    for number in range(5):
        record(TableRead("user:bo", "raw/customers", number, ("id", "email"), 10, "sql"))
    record(TableRead("user:cy", "raw/customers", 4, ("id",), None, "notebook"))
    record(TableRead("user:cy", "raw/customers", None, ("email",), None, "sql", is_refused=True))
    record(TableRead("user:bo", "raw/orders", 1, ("id",), 7, "sql"))
    log = AuditLog(made.audit_dir, made.keys_dir)
    now = datetime.now(UTC)
    log.record(Entry(time=now, action="request", name="app", method="POST", path="/predict/late", status=200, rows=3))
    log.record(Entry(time=now, action="request", name="app", method="GET", path="/features/%3F", status=404))
    log.close()
    return made


def test_reads_are_found_by_object_column_reader_and_time_page_by_page(settings):
    everything = find_reads(settings, ReadQuery())
    assert everything.total == 10
    assert [one.time for one in everything.reads] == sorted((one.time for one in everything.reads), reverse=True)
    mails = find_reads(settings, ReadQuery(object="raw.customers", column="email"))
    assert (mails.total, {one.who for one in mails.reads}) == (6, {"user:bo", "user:cy"})
    pages = [find_reads(settings, ReadQuery(object="raw.customers", page=page, limit=3)) for page in (1, 2, 3, 4)]
    assert [len(one.reads) for one in pages] == [3, 3, 1, 0]
    assert len({(one.time, one.who) for page in pages for one in page.reads}) == pages[0].total == 7
    assert find_reads(settings, ReadQuery(who="cy")).total == 2
    assert find_reads(settings, ReadQuery(until=datetime.now(UTC) - timedelta(days=1))).total == 0
    far = find_reads(
        settings, ReadQuery(since=datetime.min.replace(tzinfo=UTC), until=datetime.max.replace(tzinfo=UTC))
    )
    assert far.total == 10
    assert find_reads(settings, ReadQuery(until=datetime.min.replace(tzinfo=UTC))).total == 0


def test_readers_are_summed_up(settings):
    answer = find_reads(settings, ReadQuery(object="raw.customers", by_reader=True))
    found = {one.who: (one.reads, one.rows, one.refused, one.paths) for one in answer.readers}
    assert found == {"user:bo": (5, 50, 0, ("sql",)), "user:cy": (1, 0, 1, ("notebook", "sql"))}
    assert answer.total == 2


def test_somebody_finds_and_is_told_of_what_they_manage_alone(settings):
    store = policy_store(settings)
    assert not find_reads(settings, ReadQuery(asks=ADA)).total
    grant = Grant(privilege="manage", object="raw.customers", principal="user:ada", at=datetime.now(UTC))
    store.change(lambda document: with_grants(document, [grant]), "grant", "x", by="user:root")
    answer = find_reads(settings, ReadQuery(asks=ADA))
    assert {one.object for one in answer.reads} == {"raw.customers"}
    assert find_reads(settings, ReadQuery(asks=ADA, object="raw.orders")).total == 0
    assert find_reads(settings, ReadQuery(asks=Principal("root", "user", is_admin=True))).total == 10


def test_todays_unusual_reads_are_told_of_what_may_be_seen(settings):
    record = ReadAudit(settings, "user:root")
    for _ in range(10):
        record(TableRead("user:eve", "raw/orders", None, ("id",), None, "sql", is_refused=True))
    assert [one.rule for one in find_reads(settings, ReadQuery()).unusual] == ["refusals"]
    assert find_reads(settings, ReadQuery(object="raw.customers")).unusual == ()
