"""Attacks by Python on a guarded lake: snapshots, frames, history, versions, quarantine, writes."""

from datetime import UTC, datetime

import polars as pl
import pytest

from ml_platform.lake.access import AccessDenied, TableAccess, TableRead
from ml_platform.lake.errors import TableNotFound
from ml_platform.lake.ingestion.quarantine import look, readmissions
from ml_platform.lake.storage.maintenance import compact
from ml_platform.lake.storage.merge import append_once, merge, remove
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.lake.guarded_world import ADA, GRANTS, SmallGuard, as_ada, leaks, make_lake, people

ONE = pl.DataFrame({"id": [9], "x": [9.0]})


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return make_lake(tmp_path_factory.mktemp("guarded"))


READS = {
    "all": lambda rows: rows,
    "a predicate": lambda rows: rows.filter(pl.col("age") > 35),
    "a function in a predicate": lambda rows: rows.filter(
        pl.col("name").map_elements(lambda name: not leaks(name) or pytest.fail(name), pl.Boolean)
    ),
    "a function over frames": lambda rows: rows.map_batches(lambda frame: frame.clear() if leaks(frame) else frame),
    "an error of a cast": lambda rows: rows.filter(pl.col("city") == "Paris").select(pl.col("code").cast(pl.Int64)),
    "few columns": lambda rows: rows.select("name"),
    "no columns": lambda rows: rows.select(pl.len()),
    "first rows": lambda rows: rows.head(1),
    "last rows": lambda rows: rows.tail(1),
    "a slice": lambda rows: rows.slice(1, 5),
    "sorted by a masked column": lambda rows: rows.sort("name").select("id"),
    "groups of a masked column": lambda rows: rows.group_by("name").len(),
    "joined with itself": lambda rows: rows.join(rows, on="name"),
    "extremes": lambda rows: rows.select(pl.all().min()),
    "quantiles": lambda rows: rows.select(pl.col("age").quantile(1.0)),
    "two at once": lambda rows: pl.concat([rows, rows]),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_frames_hold_what_is_granted(lake, name, engine):
    made = READS[name](as_ada(lake).read("raw/people")).collect(engine=engine)
    copy = pl.DataFrame(
        {"id": [1, 2], "name": ["S***", "S***"], "city": ["Paris"] * 2, "age": [30, 40], "code": [None, None]},
        schema_overrides={"code": pl.String},
    )
    expected = READS[name](copy.lazy()).collect(engine=engine)
    assert made.sort(pl.all()).equals(expected.sort(pl.all()))
    assert not leaks(made)


REFUSALS = {
    "a snapshot of a masked table": lambda ada: ada.snapshot("raw/people"),
    "an old one": lambda ada: ada.snapshot("raw/people", 0),
    "one as of now": lambda ada: ada.snapshot("raw/people", as_of=datetime.now(UTC)),
    "a snapshot of some columns": lambda ada: ada.snapshot("raw/letters"),
    "a column that is not granted": lambda ada: ada.read("raw/people").select("salary").collect(),
    "a condition on it": lambda ada: ada.read("raw/people").filter(pl.col("salary") > 1).collect(),
    "a column of letters": lambda ada: ada.read("raw/letters").select("text").collect(),
    "a known table": lambda ada: ada.read("raw/known"),
    "its schema": lambda ada: ada.schema("raw/known"),
    "its history": lambda ada: ada.history("raw/known"),
    "a hidden table": lambda ada: ada.read("hidden/vault"),
    "its version": lambda ada: ada.version("hidden/vault"),
    "its versions": lambda ada: ada.versions(["hidden/vault"]),
    "its schema, hidden": lambda ada: ada.schema("hidden/vault"),
    "its history, hidden": lambda ada: ada.history("hidden/vault"),
    "its deliveries": lambda ada: ada.deliveries("hidden/vault", 0),
    "a path out of the lake": lambda ada: ada.read("raw/../hidden/vault"),
    "an absolute path": lambda ada: ada.read("/etc/passwd"),
    "quarantine": lambda ada: look(ada, "raw/people"),
    "quarantine's table": lambda ada: ada.read("quarantine/raw/people"),
    "quarantine of a hidden table": lambda ada: look(ada, "hidden/vault"),
    "readmissions": lambda ada: readmissions(ada, "raw/people"),
    "pushed rows": lambda ada: ada.read("pushed/visits__0123456789ab"),
    "audit": lambda ada: ada.read("governance/audit"),
    "append": lambda ada: ada.append("raw/open", ONE),
    "append to a new table": lambda ada: ada.append("raw/new", ONE),
    "replace": lambda ada: ada.replace("raw/open", ONE),
    "replace some": lambda ada: ada.replace("raw/open", ONE, where="id = 9"),
    "replace by batches": lambda ada: ada.replace_in_batches("raw/open", lambda: iter([ONE])),
    "restore": lambda ada: ada.restore("raw/people", 0),
    "merge": lambda ada: merge(ada, "raw/open", ONE, on=["id"]),
    "merge into a new table": lambda ada: merge(ada, "raw/new", ONE, on=["id"]),
    "remove": lambda ada: remove(ada, "raw/open", ONE.select("id")),
    "append once": lambda ada: append_once(ada, "raw/open", ONE, names=["a"], numbers={"a": 1}),
    "compact": lambda ada: compact(ada, "raw/open"),
    "write": lambda ada: ada.write(None, "raw/new", ONE, (), False, mode="append"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(lake, name):
    before = {table: lake.version(table) for table in lake.tables()}
    with pytest.raises((AccessDenied, LookupError, ValueError, pl.exceptions.ColumnNotFoundError)) as refusal:
        REFUSALS[name](as_ada(lake))
    assert not leaks(refusal.value)
    assert "hidden/vault" not in str(refusal.value).partition("it has:")[2].partition(" Materialise")[0]
    assert {table: lake.version(table) for table in lake.tables()} == before


def test_tables_are_those_that_may_be_known(lake):
    ada = as_ada(lake)
    assert {"raw/people", "raw/known"} <= set(ada.tables())
    assert not {"hidden/vault", "governance/audit", "quarantine/raw/people"} & set(ada.tables())
    assert not ada.exists("hidden/vault")
    assert ada.exists("raw/known")


def test_schemas_are_those_of_what_is_granted(lake):
    ada = as_ada(lake)
    assert ada.schema("raw/people").names() == ["id", "name", "city", "age", "code"]
    assert ada.schema("raw/letters").names() == ["id"]
    assert ada.schema("raw/open") == lake.schema("raw/open")


def test_history_keeps_back_predicates_with_values(lake):
    assert "Hidden-1" in str(lake.history("raw/people")["parameters"].to_list())
    told = as_ada(lake).history("raw/people")
    assert told["version"].to_list() == [2, 1, 0]
    assert told["parameters"].null_count() == 3
    assert not leaks(told)
    assert as_ada(lake).history("raw/open")["parameters"].null_count() == 0


def test_whole_tables_are_given_as_they_are(lake):
    ada = as_ada(lake)
    assert ada.snapshot("raw/open").file_uris() == lake.snapshot("raw/open").file_uris()
    assert ada.read("raw/open").collect().equals(lake.read("raw/open").collect())


def test_quarantine_is_for_those_who_see_the_table_whole(lake):
    both = {"raw/people": TableAccess(), "quarantine/raw/people": TableAccess()}
    assert look(as_ada(lake, both), "raw/people")["name"].to_list() == ["SECRETrejected"]
    assert readmissions(as_ada(lake, both), "raw/people").is_empty()
    with pytest.raises(AccessDenied, match=r"quotes rows of raw\.people as they are"):
        as_ada(lake, {"quarantine/raw/people": TableAccess()}).read("quarantine/raw/people")
    with pytest.raises(AccessDenied, match=r"'select' on raw\.people"):
        look(as_ada(lake, {"quarantine/raw/people": TableAccess()}), "raw/people")
    with pytest.raises(AccessDenied, match="granted by themselves"):  # not an empty quarantine
        look(as_ada(lake, {"raw/people": TableAccess()}), "raw/people")


def test_who_may_modify_writes(lake):
    guard = SmallGuard(GRANTS, privileges={("modify", "raw.notes")})
    ada = Lake(lake.uri, guard=guard)
    assert ada.append("raw/notes", ONE) == 0
    assert ada.append("raw/notes", ONE) == 1
    assert lake.read("raw/notes").collect().height == 2
    with pytest.raises(TableNotFound):  # to write is not to read
        ada.read("raw/notes")


def test_reads_are_told(lake):
    reads: list[TableRead] = []
    ada = as_ada(lake, reads=reads)
    ada.read("raw/people", version=0)
    ada.history("raw/open")
    with pytest.raises(AccessDenied):
        ada.read("raw/known")
    assert [(one.table, one.version, one.path, one.is_refused) for one in reads] == [
        ("raw/people", 0, "sql", False),
        ("raw/open", 0, "history", False),
        ("raw/known", None, "sql", True),
    ]
    assert reads[0].columns == ("id", "name", "city", "age", "code")
    assert {one.principal for one in reads} == {ADA}


def test_an_open_lake_grants_everything(lake):
    reads: list[TableRead] = []
    open_lake = Lake(lake.uri, reads=reads.append)
    assert open_lake.read("raw/people").collect().sort("id")["name"].to_list() == people()["name"].to_list()
    assert [one.principal for one in reads] == ["local"]
