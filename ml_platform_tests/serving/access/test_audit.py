"""What becomes of the audit lines of requests when their server ends, in order or killed."""

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from ml_platform.governance.audit import AuditLog, Entry
from ml_platform.governance.audit_table import read_audit, verify_audit
from ml_platform.governance.keys import KeyStore
from ml_platform.lake.storage.tables import Lake
from ml_platform.serving.access.audit import Auditing
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

Serve = Callable[..., Server]


def started(settings: Settings, serve: Serve) -> tuple[Server, dict[str, str]]:
    fill_online_store(settings)
    publish(settings, 1)
    _, token = KeyStore(settings.keys_dir).create("job", roles=["predict"])
    return serve(settings), bearer(token)


def ask(server: Server, headers: dict[str, str], number: int) -> None:
    answer = server.client.post(f"/predict/{MODEL}", json=ROW, headers={**headers, "X-Request-ID": f"r{number:04}"})
    assert answer.status_code == 200


def written(settings: Settings) -> list[str]:
    """Ids of the requests in the log, in their order."""
    found = read_audit(Lake(settings.lake_uri), settings)["request_id"].drop_nulls().to_list()
    return [name for name in found if name.startswith("r0")]


def test_a_server_that_is_stopped_loses_no_line(settings: Settings, serve: Serve) -> None:
    server, headers = started(settings, serve)
    for number in range(100):
        ask(server, headers, number)
    server.stop()
    assert written(settings) == [f"r{number:04}" for number in range(100)]
    assert verify_audit(Lake(settings.lake_uri), settings)[1] == []


def test_a_server_that_is_killed_loses_only_the_newest_lines_and_leaves_a_sound_chain(
    settings: Settings, serve: Serve
) -> None:
    server, headers = started(settings, serve)
    for number in range(50):
        ask(server, headers, number)
    server.wait_until(lambda _: len(written(settings)) == 50)
    for number in range(50, 100):
        ask(server, headers, number)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(120)
    found = written(settings)
    assert found == [f"r{number:04}" for number in range(len(found))]
    assert 50 <= len(found) <= 100
    KeyStore(settings.keys_dir, settings.audit_dir).create("next", roles=["predict"])  # opens the next file
    assert verify_audit(Lake(settings.lake_uri), settings)[1] == []


def test_what_cannot_be_written_is_counted_in_the_servers_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.audit_dir.parent.mkdir(parents=True, exist_ok=True)
    settings.audit_dir.write_text("a file where the folder should be")
    auditing = Auditing(AuditLog(settings.audit_dir, settings.keys_dir))
    auditing.close()
    assert caplog.text == ""

    async def note() -> None:
        for _ in range(3):
            auditing.note({"client": None, "method": "GET", "path": "/models", "headers": []})
        auditing.close()

    asyncio.run(note())
    assert "the audit log cannot be written, 3 requests are lost to it" in caplog.text


def test_entries_of_one_write_vouch_for_one_another(settings: Settings) -> None:
    log = AuditLog(settings.audit_dir, settings.keys_dir)
    log.record(*[Entry(time=datetime.now(UTC), request_id=f"r0{number}") for number in range(5)])
    log.close()
    assert verify_audit(Lake(settings.lake_uri), settings) == (6, [])
    (path,) = settings.audit_dir.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"r03", b"r07"))
    (found,) = verify_audit(Lake(settings.lake_uri), settings)[1]
    assert str(found) == f"{path.name}, line 4: was altered"
