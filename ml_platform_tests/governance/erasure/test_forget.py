import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime

import polars as pl
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.governance.audit_table import verify_audit
from ml_platform.governance.erasure.certificate import certificates, erasures_dir, verify_certificates
from ml_platform.lake.errors import VersionGone
from ml_platform.lake.storage.merge import merge
from ml_platform.lake.storage.tables import Lake
from ml_platform.segment_log.segments import SUFFIX
from ml_platform_tests.governance.erasure import killed
from ml_platform_tests.governance.erasure.world import (
    ORDERS,
    QUARANTINE,
    SHOP,
    VIEW,
    VISITS,
    bytes_with,
    customers,
    customers_erasure,
    fill_shops,
    shops_erasure,
)

EVERYBODY_ELSE = ["customer-0", "customer-0", "customer-2", "customer-3"]


@pytest.fixture
def home(tmp_path):
    return customers(tmp_path / "home")


def visitors(settings):
    return Lake(settings.lake_uri).read(VISITS).collect()["cust_id"].sort().to_list()


def test_nothing_of_a_customer_is_left_in_any_byte_and_all_of_the_others_is(home):
    lake = Lake(home.lake_uri)
    certificate, _ = customers_erasure(home).run(reason="asked by letter", ticket="T-1")
    assert bytes_with(home.home, "customer-1") == []
    assert visitors(home) == EVERYBODY_ELSE
    assert lake.read(VIEW).collect()["customer"].sort().to_list() == ["customer-0", "customer-2", "customer-3"]
    assert lake.read("quarantine/raw/visits").collect().height == 3
    with open_online_store(home.online_uri) as store:
        rows = store.read([("customer_visits", (f"customer-{number}",)) for number in range(4)])
    assert [row is None for row in rows] == [False, True, False, False]
    assert not (home.home / "reports" / "page.html").exists()
    removed = {one["table"]: one["rows_removed"] for one in certificate.tables}
    assert removed == {VISITS: 1, VIEW: 1, "quarantine/raw/visits": 1}
    assert certificate.versions_lost[VISITS] == [0, 1, 2]
    with pytest.raises(VersionGone):
        lake.snapshot(VISITS, 0)
    assert customers_erasure(home).search() == []


def test_versions_that_never_had_the_customer_stay_readable(tmp_path):
    settings = customers(tmp_path / "home")
    lake = Lake(settings.lake_uri)
    lake.replace("raw/visits", pl.DataFrame({"cust_id": ["customer-2"], "visits": [1]}))
    clean = lake.version(VISITS)
    lake.append("raw/visits", pl.DataFrame({"cust_id": ["customer-1"], "visits": [1]}))
    certificate, _ = customers_erasure(settings).run()
    assert lake.read(VISITS, version=clean).collect()["cust_id"].to_list() == ["customer-2"]
    assert clean not in certificate.versions_lost[VISITS]
    assert clean + 1 in certificate.versions_lost[VISITS]


def test_checkpoints_forget_what_they_knew_of_deleted_files(home):
    lake = Lake(home.lake_uri)
    lake.snapshot(VISITS).create_checkpoint()
    customers_erasure(home).run()
    assert bytes_with(home.home, "customer-1") == []
    assert visitors(home) == EVERYBODY_ELSE


def test_a_dry_run_changes_nothing_and_says_all_of_it(home):
    before = bytes_with(home.home, "customer-1")
    plan = customers_erasure(home).plan()
    assert bytes_with(home.home, "customer-1") == before
    assert {one["table"] for one in plan.tables} == {VISITS, VIEW, "quarantine/raw/visits"}
    assert not certificates(home)
    assert visitors(home).count("customer-1") == 1


def test_no_write_brings_a_customer_back(home):
    lake = Lake(home.lake_uri)
    customers_erasure(home).run()
    again = pl.DataFrame({"cust_id": ["customer-1", "customer-5"], "visits": [1, 1]})
    lake.append(VISITS, again)
    merge(lake, VISITS, again, on=["cust_id"])
    lake.replace(VISITS, again, where="cust_id in ('customer-1', 'customer-5')")
    assert visitors(home) == [*EVERYBODY_ELSE, "customer-5"]
    lake.replace_in_batches(VISITS, lambda: iter([again]))
    lake.append("quarantine/raw/visits", pl.DataFrame({"row": ['{"a": 1, "cust_id": "customer-1"}', "{"]}))
    lake.append("features/another", pl.DataFrame({"customer": ["customer-1", "x"]}))
    assert visitors(home) == ["customer-5"]
    assert lake.read("features/another").collect()["customer"].to_list() == ["x"]
    assert lake.read("quarantine/raw/visits").collect().height == 4
    assert bytes_with(home.home / "lake", "customer-1") == ["raw/visits/_delta_log/00000000000000000006.json"]
    assert "predicate" in (home.home / "lake/raw/visits/_delta_log/00000000000000000006.json").read_text()


def test_the_list_of_the_suppressed_has_no_value_and_can_be_left_out(home):
    customers_erasure(home).run(suppressed=False)
    Lake(home.lake_uri).append(VISITS, pl.DataFrame({"cust_id": ["customer-1"], "visits": [1]}))
    assert "customer-1" in visitors(home)
    assert customers_erasure(home).search() == [
        f"{VISITS}: 1 rows of its newest version",
        *(line for line in customers_erasure(home).search() if "_delta_log" in line),
    ]


def test_several_erasures_are_linked_and_an_altered_certificate_is_told(home):
    for number in range(3):
        customers_erasure(home, f"customer-{number}").run()
    lake = Lake(home.lake_uri)
    assert verify_certificates(lake, home) == []
    assert verify_audit(lake, home)[1] == []
    path = erasures_dir(home) / "000002.json"
    whole = path.read_text()
    path.write_text(whole.replace('"by"', '"by" ').replace('"entity": "customer"', '"entity": "shop"'))
    assert "certificate 2 was altered, or one before it was" in verify_certificates(lake, home)
    path.write_text(whole)
    (erasures_dir(home) / "000003.json").unlink()
    assert verify_certificates(lake, home) == ["certificate 3 is missing, which the audit log names"]


def test_columns_that_are_not_declared_are_named_and_erased_when_told(home):
    lake = Lake(home.lake_uri)
    lake.append("raw/notes", pl.DataFrame({"who": ["customer-1", "x"]}))
    certificate, _ = customers_erasure(home).run()
    assert certificate.not_declared == ["raw/notes.who: 1 rows have the value (--also raw/notes.who)"]
    customers_erasure(home, also=("raw/notes.who",)).run()
    assert lake.read("raw/notes").collect()["who"].to_list() == ["x"]
    assert bytes_with(home.home, "customer-1") == []


def test_an_unknown_entity_is_answered_by_the_nearest():
    from ml_platform.governance.erasure.entities import Project, declare
    from ml_platform_tests.governance.erasure.world import Visits, raw_table

    project = Project({VISITS: raw_table(VISITS, Visits)}, {}, {}, {}, {}, {})
    with pytest.raises(LookupError, match="Did you mean 'customer'"):
        declare("custmer", project)
    with pytest.raises(ValueError, match=r"schema/table\.column"):
        declare("customer", project, ("visits",))


def test_writers_meanwhile_lose_nothing(home):
    lake = Lake(home.lake_uri)
    started = threading.Event()
    names = [f"new-{number}" for number in range(25)]

    def write():
        for name in names:
            lake.append(VISITS, pl.DataFrame({"cust_id": [name, "customer-1"], "visits": [1, 1]}))
            started.set()

    thread = threading.Thread(target=write)
    thread.start()
    started.wait()
    customers_erasure(home).run()
    thread.join()
    assert visitors(home) == sorted([*EVERYBODY_ELSE, *names])


def test_two_at_once_erase_both(home):
    runs = [threading.Thread(target=customers_erasure(home, one).run) for one in ("customer-1", "customer-2")]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert visitors(home) == ["customer-0", "customer-0", "customer-3"]
    assert [one.number for one in certificates(home)] == [1, 2]
    assert verify_certificates(Lake(home.lake_uri), home) == []


def test_many_are_erased_by_one_pass(home):
    lake = Lake(home.lake_uri)
    lake.append(VISITS, pl.DataFrame({"cust_id": [f"many-{number}" for number in range(5000)], "visits": [1] * 5000}))
    customers_erasure(home, *(f"many-{number}" for number in range(4000))).run()
    assert len(visitors(home)) == 5 + 1000


def test_redis_forgets_a_customer_and_counts_right(tmp_path, redis_uri):
    settings = customers(tmp_path / "home", online_uri=redis_uri)
    customers_erasure(settings).run()
    with open_online_store(redis_uri) as store:
        rows = store.read([("customer_visits", (f"customer-{number}",)) for number in range(4)])
    assert [row is None for row in rows] == [False, True, False, False]
    assert customers_erasure(settings).search() == []


def _killed_at(tmp_path, step):
    """Kill an erasure at a step and run it again; whether it was killed, and what is left afterwards."""
    home = tmp_path / f"home-{step}"
    settings = customers(home)
    done = subprocess.run([sys.executable, "-m", killed.__name__, str(home), str(step)], check=False, timeout=300)
    if done.returncode == -signal.SIGKILL:
        customers_erasure(settings).run()
    else:
        assert done.returncode == 0
    assert visitors(settings) == EVERYBODY_ELSE
    assert bytes_with(home, "customer-1") == []
    assert verify_certificates(Lake(settings.lake_uri), settings) == []
    (last, *_) = certificates(settings)[::-1]
    assert {one["table"]: one["rows_removed"] for one in last.tables if one.get("rows_removed")}
    shutil.rmtree(home)
    return done.returncode == -signal.SIGKILL


def test_a_killed_erasure_is_finished_by_running_it_again(tmp_path):
    assert _killed_at(tmp_path, 6)


@pytest.mark.slow
def test_a_kill_at_every_third_step_is_finished_by_running_it_again(tmp_path):
    steps = next(step for step in range(1, 100, 3) if not _killed_at(tmp_path, step))
    assert steps > 10


def test_the_shop_leaves_training_sets_and_the_model_that_learned_from_it_is_named(shops, trained_shops):
    _, trained = trained_shops
    fill_shops(shops)
    before = shops.lake.read(ORDERS).collect()
    table = f"training_sets/{shops.spec.name}"
    ids = before.filter(pl.col("shop") == SHOP)["order_id"]
    certificate, _ = shops_erasure(shops).run()
    after = shops.lake.read(ORDERS).collect()
    assert after.sort("order_id").equals(before.filter(pl.col("shop") != SHOP).sort("order_id"))
    assert not shops.lake.read(table).collect()["order_id"].is_in(ids.implode()).any()
    assert shops.lake.read(QUARANTINE).collect().height == 1
    (model,) = certificate.trained_on
    assert f"rows of {table} version {trained.training_set.version}" in model
    assert any(f"{table} version {trained.training_set.version}" in line for line in certificate.irreproducible)
    assert any("golden.json" in line for line in certificate.remains)
    assert certificate.comes_back_from[0].startswith("raw/loads: raw/loads.csv")
    run = shops.settings.home / "notebooks" / "explore" / "1"
    assert sorted(path.name for path in run.iterdir()) == ["cache.parquet", "other.html"]
    assert pl.read_parquet(run / "cache.parquet")["shop"].to_list() == ["shop-4"]


def test_ids_of_the_rows_by_spine_leave_files_and_ids_that_contain_the_value_are_named(shops, trained_shops):
    orders = shops.lake.read(ORDERS).collect()
    own = orders.filter(pl.col("shop") == SHOP)["order_id"][0]
    other = orders.filter(pl.col("shop") != SHOP)["order_id"][0]
    reports = shops.settings.home / "reports"
    reports.mkdir(exist_ok=True)
    pl.DataFrame({shops.spec.id: [own, other], "score": [0.1, 0.2]}).write_csv(reports / "scored.csv")
    (reports / "near.csv").write_text(f"id,score\nv-{SHOP},0.1\nv-{SHOP}0,0.2\n")
    near = f"reports/near.csv: may be of another id, and was left: v-{SHOP}"
    plan = shops_erasure(shops).plan()
    assert near in plan.remains
    assert {"place": "reports", "files_searched": 2, "files": ["reports/scored.csv"]} in plan.elsewhere
    assert "reports: reports/scored.csv" in shops_erasure(shops).search()
    certificate, _ = shops_erasure(shops).run()
    assert pl.read_csv(reports / "scored.csv", infer_schema=False)[shops.spec.id].to_list() == [other]
    assert near in certificate.remains
    assert near in shops_erasure(shops).search()


def test_ids_of_the_rows_are_known_to_the_second_run_of_an_erasure_that_broke_off(shops, trained_shops):
    orders = shops.lake.read(ORDERS).collect()
    own = orders.filter(pl.col("shop") == SHOP)["order_id"][0]
    scored = shops.settings.home / "reports" / "scored.csv"
    scored.parent.mkdir(exist_ok=True)
    pl.DataFrame({shops.spec.id: [own, "other-order"], "score": [0.1, 0.2]}).write_csv(scored)

    def break_off(line):
        if line == "searching files":
            raise OSError(line)

    with pytest.raises(OSError, match="searching files"):
        shops_erasure(shops).run(progress=break_off)
    assert not shops.lake.read(ORDERS).collect()["shop"].is_in([SHOP]).any()
    shops_erasure(shops).run()
    assert pl.read_csv(scored)[shops.spec.id].to_list() == ["other-order"]


def test_a_certificate_that_cannot_be_read_is_a_finding_and_stops_an_erasure_before_it_begins(home):
    for number in range(3):
        customers_erasure(home, f"customer-{number}").run()
    path = erasures_dir(home) / "000002.json"
    path.write_text("not json")
    (finding,) = verify_certificates(Lake(home.lake_uri), home)
    assert "000002.json: not a certificate" in finding
    before = visitors(home)
    with pytest.raises(ValueError, match="restore it from a backup"):
        customers_erasure(home, "customer-3").run()
    assert visitors(home) == before


def test_an_id_that_goes_on_with_a_blank_is_another_one(home):
    rows = pl.DataFrame({"customer": ["customer-1 "], "event_time": [datetime(2024, 5, 2, tzinfo=UTC)], "visits": [7]})
    with open_online_store(home.online_uri) as store:
        store.write("customer_visits", ("customer",), rows)
    assert any("online store: 1 rows" in line for line in customers_erasure(home).search())
    customers_erasure(home).run()
    assert customers_erasure(home).search() == []
    with open_online_store(home.online_uri) as store:
        assert store.read([("customer_visits", ("customer-1 ",))])[0] is not None


@pytest.mark.parametrize(
    ("content", "stands"),
    [
        (b"\xaacustomer-1\x20", True),  # MessagePack: ten bytes, then the number 32
        (b"\xabcustomer-1 ", False),
        (b"\xabcustomer-1 \xaacustomer-1", True),
        (b'"customer-1 "', False),
        (b'"customer-1" ', True),
        (b"of customer-1 and", True),
        (b"customer-1 ", True),
        (b"customer-12", False),
    ],
)
def test_a_text_is_found_as_a_value_of_its_own(home, content, stands):
    assert customers_erasure(home).subjects.stands_in(content) is stands


def test_a_dry_run_counts_lines_of_logs_that_are_not_in_the_lake_yet(home):
    folder = home.inference_log_dir / "visits"
    folder.mkdir(parents=True)
    (folder / f"a{SUFFIX}").write_bytes(b'{"inputs":{"customer":"customer-1"}}\n{"inputs":{"customer":"customer-2"}}\n')
    plan = customers_erasure(home).plan()
    assert {"place": "log of inference_log/visits, which is taken into the lake first", "lines": 1} in plan.elsewhere
    assert any(one["place"].startswith("log of") for one in customers_erasure(home, "2").plan().elsewhere) is False
