"""The audit log: whoever alters, removes or moves a line of it is found out, in the files and in the lake."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance.audit import TABLE, AuditLog, Entry
from ml_platform.governance.audit_table import ingest_audit, read_audit, verify_audit
from ml_platform.governance.keys import KeyStore
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.audit_asset import audit, audit_defs
from ml_platform.orchestration.resources import build_resources
from ml_platform.settings import Settings

NOW = datetime.now(UTC)


def open_log(settings: Settings) -> AuditLog:
    return AuditLog(settings.audit_dir, settings.keys_dir)


def request(number: int, name: str = "job") -> Entry:
    return Entry(
        time=NOW + timedelta(microseconds=number), request_id=f"r{number}", key="k1", name=name, client="127.0.0.1",
        method="POST", path="/predict/m", status=200,
    )  # fmt: skip


def write(settings: Settings, count: int = 6) -> Path:
    """A file of so many requests, after its first line."""
    before = set(settings.audit_dir.glob("*.jsonl"))
    log = open_log(settings)
    for number in range(count):
        log.record(request(number))
    log.close()
    (written,) = set(settings.audit_dir.glob("*.jsonl")) - before
    return written


def told(lake: Lake, settings: Settings) -> list[str]:
    return [str(finding) for finding in verify_audit(lake, settings)[1]]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


FORGED = b'{"number":4,"time":"2026-01-01T00:00:00Z"}\n'


def changed(place: int, old: bytes, new: bytes) -> Callable[[list[bytes]], object]:
    return lambda lines: lines.__setitem__(place, lines[place].replace(old, new))


ATTACKS: dict[str, tuple[Callable[[list[bytes]], object], str]] = {
    "a status": (changed(3, b"200", b"404"), "line 3: was altered"),
    "a name": (changed(1, b"job", b"bob"), "line 1: was altered"),
    "a huge number": (changed(4, b'"number":4', b'"number":4000000000'), "line 4: was altered"),
    "a line out of the middle": (lambda lines: lines.pop(3), "line 3: line 3 is missing before line 4"),
    "several lines": (lambda lines: lines.__delitem__(slice(2, 5)), "line 2: lines 2 to 4 are missing before line 5"),
    "the first line": (lambda lines: lines.pop(0), "line 0: line 0 is missing before line 1"),
    "two lines swapped": (lambda lines: lines.insert(2, lines.pop(3)), "line 2: stands a second time or out of order"),
    "a line twice": (lambda lines: lines.insert(4, lines[3]), "line 3: stands a second time or out of order"),
    "a line of its own": (lambda lines: lines.insert(4, FORGED), "line 4: cannot be read"),
    "garbage": (lambda lines: lines.__setitem__(4, b"\xff\n"), "line 4: cannot be read"),
    "the end": (lambda lines: lines.__delitem__(slice(5, None)), "line 5: lines are missing at the end: it had 7"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_on_a_file_is_found_and_placed(settings: Settings, lake: Lake, attack: str) -> None:
    path = write(settings)
    write(settings, 1)  # its first line names how far the other has come
    assert verify_audit(lake, settings) == (9, [])
    change, wanted = ATTACKS[attack]
    lines = lines_of(path)
    change(lines)
    path.write_bytes(b"".join(lines))
    found = told(lake, settings)
    assert any(wanted in one and one.startswith(path.name) for one in found), found


def test_a_deleted_file_and_one_of_another_place_are_found(settings: Settings, lake: Lake) -> None:
    first, second = write(settings), write(settings, 2)
    content = first.read_bytes()
    first.unlink()
    assert told(lake, settings) == [f"{first.name}: is missing; it had 7 lines when {second.name} was opened"]
    first.write_bytes(second.read_bytes())
    assert f"{first.name}, line 0: was altered" in told(lake, settings)
    first.write_bytes(content)
    assert told(lake, settings) == []
    first.unlink()
    second.unlink()
    assert told(lake, settings) == ["audit: no line is left, though audit.secret was made with the first one"]


def test_without_the_secret_no_chain_can_be_forged(settings: Settings, lake: Lake, tmp_path: Path) -> None:
    path = write(settings)
    other = Settings(home=tmp_path / "other")
    forged = write(other)
    path.write_bytes(forged.read_bytes())
    assert len(told(lake, settings)) == 7
    secret = settings.keys_dir / "audit.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_bytes() not in path.read_bytes()
    secret.unlink()
    with pytest.raises(FileNotFoundError, match=r"audit\.secret"):
        verify_audit(lake, settings)


def test_the_lake_gets_each_line_once_and_proves_it(settings: Settings, lake: Lake) -> None:
    log = open_log(settings)
    log.record(request(0))
    assert ingest_audit(lake, settings).rows == 2
    log.record(request(1))
    assert [ingest_audit(lake, settings).rows for _ in range(2)] == [1, 0]
    log.close()
    assert ingest_audit(lake, settings).deleted == 0  # nothing vouches for its end yet
    write(settings, 3)
    assert ingest_audit(lake, settings).deleted == 1
    assert verify_audit(lake, settings) == (3 + 4 + 4, [])  # the second file stands in the table and in the folder
    rows = lake.read(TABLE).sort("time", "number").collect()
    assert rows.filter(pl.col("action") == "request")["request_id"].to_list() == ["r0", "r0", "r1", "r1", "r2"]
    assert rows["segment"].n_unique() == 2


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (pl.col("number") != 3, "line 3: line 3 is missing before line 4"),
        (pl.col("number") < 5, "line 5: lines are missing at the end"),
        (pl.lit(False), "is missing; it had 7 lines"),
        (pl.when(pl.col("number") == 2).then(pl.lit("bob")).otherwise("name").alias("name"), "line 2: columns of"),
        (pl.col("line").str.replace("r3", "r9"), "line 4: was altered"),
    ],
    ids=["a row", "the end", "a file", "a column", "a line"],
)
def test_an_attack_on_the_table_is_found_and_placed(
    settings: Settings, lake: Lake, change: pl.Expr, wanted: str
) -> None:
    first = write(settings)
    write(settings, 1)
    ingest_audit(lake, settings)
    assert not first.exists()
    assert told(lake, settings) == []
    rows = lake.read(TABLE).collect()
    mine = pl.col("segment") == first.name
    if change.meta.output_name() in ("name", "line"):
        changed = rows.with_columns(pl.when(mine).then(change).otherwise(change.meta.output_name()).alias(
            change.meta.output_name()))  # fmt: skip
    else:
        changed = rows.filter(~mine | change)
    lake.replace(TABLE, changed)
    assert any(wanted in one and one.startswith(first.name) for one in told(lake, settings)), told(lake, settings)


WRITER = """
import sys
from datetime import UTC, datetime
from ml_platform.governance.audit import AuditLog, Entry
from ml_platform.settings import Settings
settings = Settings(home=sys.argv[1])
log = AuditLog(settings.audit_dir, settings.keys_dir)
while True:
    log.record(Entry(time=datetime.now(UTC), name="writer"))
    print("written", flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_sound_chain(settings: Settings, lake: Lake) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(settings.home)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    left = list(settings.audit_dir.glob("*.jsonl"))  # one of each writer, and one more where a day ended meanwhile
    assert len(left) >= 2
    # What was being written at that instant may be there in part; nobody was told that it was written.
    unfinished = {path.name for path in left if not path.read_bytes().endswith(b"\n")}
    write(settings, 1)
    assert ingest_audit(lake, settings).deleted == len(left)
    lines, findings = verify_audit(lake, settings)
    assert lines >= 104
    assert [one for one in findings if one.file not in unfinished or "cannot be read" not in one.what] == []


def test_a_line_that_was_not_written_whole_is_kept_and_told(settings: Settings, lake: Lake) -> None:
    path = write(settings, 2)
    path.write_bytes(path.read_bytes()[:-30])  # as a full disk would leave it
    write(settings, 1)
    ingest_audit(lake, settings)
    assert lake.read(TABLE).filter(pl.col("action") == "unreadable").collect().height == 1
    assert any("cannot be read" in one for one in told(lake, settings))


def test_each_day_has_files_of_its_own(settings: Settings, lake: Lake) -> None:
    log = open_log(settings)
    log.record(request(0))
    log.record(Entry(time=NOW + timedelta(days=1)))
    log.close()
    assert len(list(settings.audit_dir.glob("*.jsonl"))) == 2
    assert told(lake, settings) == []


def test_keys_are_made_rotated_and_revoked_on_the_record(settings: Settings, lake: Lake) -> None:
    store = KeyStore(settings.keys_dir, settings.audit_dir)
    key, token = store.create("nightly", roles=["predict"], models=["m"])
    turned, _ = store.rotate(key.id)
    store.revoke(turned.id)
    found = read_audit(lake, settings).filter(pl.col("action").str.starts_with("key "))
    assert found["action"].to_list() == ["key created", "key rotated", "key revoked"]
    assert found["detail"].to_list()[0] == f"{key.id} 'nightly': predict; models m"
    assert found["detail"].to_list()[1] == f"{turned.id} 'nightly': predict; models m; in place of {key.id}"
    assert found["name"].null_count() == 0
    assert token not in str(found.to_dicts())
    assert told(lake, settings) == []


def test_the_command_line_shows_and_verifies(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    run = CliRunner().invoke
    assert "0 lines are as they were written" in run(app, ["audit", "verify"]).output
    path = write(settings)
    log = open_log(settings)
    entry = request(9, name="ada")
    entry.rows = 1200
    log.record(entry)
    log.close()
    shown = run(app, ["audit", "show", "--caller", "ada", "--since", f"{NOW:%Y-%m-%d}"]).output
    assert shown.count("\n") == 1
    assert "ada  POST /predict/m 200, 1,200 rows" in shown
    assert run(app, ["audit", "show", "--caller", "ada", "--since", f"{NOW + timedelta(days=2):%Y-%m-%d}"]).output == ""
    assert "older lines" in run(app, ["audit", "show", "--limit", "2"]).output
    good = run(app, ["audit", "verify"])
    assert (good.exit_code, good.output) == (0, "9 lines are as they were written, and 0 entries of the ledger.\n")
    path.write_bytes(path.read_bytes().replace(b"r3", b"r4"))
    bad = run(app, ["audit", "verify"])
    assert bad.exit_code == 1
    assert f"{path.name}, line 4: was altered" in bad.output


def test_the_asset_takes_it_up_and_its_check_fails_once_it_was_altered(settings: Settings, lake: Lake) -> None:
    write(settings)
    last = write(settings, 1)
    result = dg.materialize([audit], resources=build_resources(settings))
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "unaltered"]
    assert check.passed
    (event,) = result.asset_materializations_for_node("governance__audit")
    assert (event.metadata["new rows"].value, event.metadata["files ingested"].value) == (9, 1)
    last.write_bytes(last.read_bytes().replace(b"job", b"bob"))
    again = dg.materialize([audit], resources=build_resources(settings))
    (check,) = [one for one in again.get_asset_check_evaluations() if one.check_name == "unaltered"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "line 1: was altered" in (check.description or "")
    schedules = audit_defs().schedules or []
    assert [schedule.cron_schedule for schedule in schedules if isinstance(schedule, dg.ScheduleDefinition)] == [
        "20 * * * *"
    ]


def test_a_table_from_before_rows_were_counted_is_read_and_goes_on(settings: Settings, lake: Lake) -> None:
    write(settings)
    ingest_audit(lake, settings)
    lake.replace(TABLE, lake.read(TABLE).drop("rows").collect(), partition_by=["date"])
    assert told(lake, settings) == []
    log = open_log(settings)
    entry = request(7)
    entry.rows = 12
    log.record(entry)
    log.close()
    for _ in range(2):
        entries = read_audit(lake, settings).filter(pl.col("action") == "request")
        assert entries["rows"].to_list() == [None] * 6 + [12]
        assert told(lake, settings) == []
        ingest_audit(lake, settings)
