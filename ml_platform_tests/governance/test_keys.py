"""API keys: what is kept of them, what they open, and how they end."""

import re
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance import keys
from ml_platform.governance.keys import RELOAD_SECONDS, KeyStore
from ml_platform_tests.clock import Clock, datetime_after


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys")


def fresh(store: KeyStore) -> KeyStore:
    """The store as a process that starts now sees it."""
    return KeyStore(store.folder)


def test_a_key_is_found_by_its_text_alone_and_its_text_is_kept_nowhere(store: KeyStore) -> None:
    key, token = store.create("job", roles=["predict"], models=["flight_delay"])
    assert re.fullmatch(r"mlp_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", token)
    found = fresh(store).find(token)
    assert found == key
    assert found is not None
    assert (found.covers("flight_delay"), found.covers("other"), found.covers("*")) == (True, False, False)
    for path in store.folder.iterdir():
        assert token.encode() not in path.read_bytes()
        assert token.split("_", 2)[2].encode() not in path.read_bytes()
    assert stat.S_IMODE((store.folder / "keys.secret").stat().st_mode) == 0o600
    other = f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}"
    for wrong in (other, token.upper(), token + "A", f" {token}", "", "mlp_", key.id, key.digest):
        assert fresh(store).find(wrong) is None


def test_the_file_of_keys_opens_nothing_without_the_secret(store: KeyStore, tmp_path: Path) -> None:
    _, token = store.create("job", roles=["admin"])
    other = KeyStore(tmp_path / "other")
    other.create("another", roles=["admin"])
    (other.folder / "keys.json").write_bytes((store.folder / "keys.json").read_bytes())
    assert fresh(other).find(token) is None


@pytest.mark.parametrize(
    ("held", "predict", "explain", "promote"),
    [
        ("predict", True, False, False),
        ("explain", True, True, False),
        ("promote", False, False, True),
        ("admin", True, True, True),
    ],
)
def test_roles_include_others(store: KeyStore, held: str, predict: bool, explain: bool, promote: bool) -> None:
    key, _ = store.create("job", roles=[held])
    assert [key.has_role(role) for role in ("predict", "explain", "promote")] == [predict, explain, promote]


def test_keys_end_by_time_by_revocation_and_after_the_grace_of_a_rotation(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief, short = store.create("short", roles=["predict"], days=1)
    assert brief.expires_at is not None
    assert brief.is_valid(brief.created_at)
    assert not brief.is_valid(brief.expires_at)
    key, revoked = store.create("revoked", roles=["predict"])
    old, before = store.create("rotated", roles=["explain"], models=["a", "b"], days=9)
    other, soon = store.create("soon rotated", roles=["explain"])
    assert all(fresh(store).find(token) for token in (revoked, before, soon))
    store.revoke(key.id)
    new, after = store.rotate(old.id, grace=timedelta(days=3))
    assert (new.name, new.roles, new.models, new.expires_at) == (old.name, old.roles, old.models, old.expires_at)
    assert fresh(store).find(revoked) is None
    assert fresh(store).find(before) is not None
    store.rotate(other.id, grace=timedelta(days=1))
    assert fresh(store).find(soon) is not None
    monkeypatch.setattr(keys, "datetime", datetime_after(timedelta(days=2)))
    assert fresh(store).find(short) is None
    assert fresh(store).find(soon) is None
    assert fresh(store).find(before) is not None
    assert fresh(store).find(after) == new
    with pytest.raises(LookupError, match="no longer valid"):
        store.rotate(other.id)


def test_a_running_process_follows(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(keys, "time", clock)
    reader = fresh(store)
    assert not reader.in_use()
    key, token = store.create("job", roles=["predict"])
    clock.now += RELOAD_SECONDS + 0.1
    assert reader.in_use()
    assert reader.find(token) is not None
    store.revoke(key.id)
    clock.now += RELOAD_SECONDS + 0.1
    assert reader.find(token) is None
    (store.folder / "keys.json").unlink()
    clock.now += RELOAD_SECONDS + 0.1
    assert reader.in_use()  # a file that goes opens nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a", "roles": ["owner"]}, "wanted some of predict, explain, push, promote, admin, found"),
        ({"name": "a", "roles": []}, "found none"),
        ({"name": "a\nb", "roles": ["predict"]}, "letters, digits"),
        ({"name": "a", "roles": ["predict"], "models": []}, r"or '\*' for all"),
        ({"name": "a", "roles": ["predict"], "days": 0}, "more than 0"),
        ({"name": "a", "roles": ["predict"], "days": 1e12}, "at most 36,500, found 1e.12; none for no end"),
        ({"name": "taken", "roles": ["predict"]}, "rotate it"),
    ],
)
def test_what_makes_no_sense_is_refused(store: KeyStore, arguments: dict[str, object], message: str) -> None:
    store.create("taken", roles=["predict"])
    with pytest.raises(ValueError, match=message):
        store.create(**arguments)  # type: ignore[arg-type]
    assert len(store.keys()) == 1


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    runner = CliRunner()
    assert "There are no keys" in runner.invoke(app, ["keys", "list"]).output
    made = runner.invoke(app, ["keys", "create", "job", "--role", "predict", "--model", "flight_delay", "--days", "30"])
    assert made.exit_code == 0
    token = made.stdout.strip()
    store = KeyStore(tmp_path / "keys")
    key = store.find(token)
    assert key is not None
    listed = runner.invoke(app, ["keys", "list"]).output
    assert key.id in listed
    assert "job: predict; models flight_delay" in listed
    assert token not in listed
    rotated = runner.invoke(app, ["keys", "rotate", key.id, "--grace-hours", "0"]).stdout.strip()
    fresh_store = KeyStore(tmp_path / "keys")
    assert fresh_store.find(token) is None
    new = fresh_store.find(rotated)
    assert new is not None
    assert runner.invoke(app, ["keys", "revoke", new.id]).exit_code == 0
    assert KeyStore(tmp_path / "keys").find(rotated) is None
    failed = runner.invoke(app, ["keys", "revoke", "nothing"])
    assert failed.exit_code == 1
    assert "there is no key nothing" in failed.output
    assert runner.invoke(app, ["keys", "create", "x", "--role", "king"]).exit_code == 1
