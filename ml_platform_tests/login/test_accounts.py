"""The file of accounts: what is kept, two at once, and that an admin is always left."""

import getpass
import json
import threading

import pytest
from typer.testing import CliRunner

from ml_platform.gateway_identity import login_in_use
from ml_platform.governance.keys import KeyStore
from ml_platform.login.accounts import AccountRefused, AccountStore
from ml_platform.login.cli import app
from ml_platform.login.passwords import PasswordRefused, check_new, hashed, is_right
from ml_platform.login.roles import RoleUnknown
from ml_platform.settings import Settings

PASSWORD = "correct horse battery"


@pytest.fixture
def store(tmp_path):
    return AccountStore(Settings(home=tmp_path))


def test_an_account_puts_login_into_use_and_no_password_is_kept(store, tmp_path):
    assert not login_in_use(tmp_path / "keys")
    store.add("ada", PASSWORD, roles=["admin"])
    assert login_in_use(tmp_path / "keys")
    kept = store.path.read_text()
    assert "horse" not in kept
    assert json.loads(kept)["accounts"][0]["password"].startswith("$argon2id$")
    assert is_right(PASSWORD, store.get("ada").password)
    assert not is_right(PASSWORD.upper(), store.get("ada").password)


@pytest.mark.parametrize("name", ["", "a b", "../a", "a:b", "ä", "-a", "a.", "x" * 64, "a\n", "user:ada"])
def test_names_that_could_be_mistaken_are_refused(store, name):
    with pytest.raises(AccountRefused):
        store.add(name, PASSWORD, roles=["viewer"])


def test_a_name_in_other_capitals_is_taken(store):
    store.add("ada", PASSWORD, roles=["viewer"])
    with pytest.raises(AccountRefused, match="account ada already"):
        store.add("Ada", PASSWORD, roles=["viewer"])


@pytest.mark.parametrize("password", ["", "short", "a" * 300, "aaaaaaaaaaaaaa", "ada-ada-ada-ada-1"])
def test_easy_passwords_are_refused(store, password):
    with pytest.raises(PasswordRefused):
        store.add("ada", password, roles=["viewer"])
    assert store.accounts() == []


def test_unknown_roles_and_no_role_are_refused(store):
    for roles in (["owner"], ["spark=viewer"], ["dagster="], []):
        with pytest.raises((RoleUnknown, AccountRefused)):
            store.add("ada", PASSWORD, roles=roles)


def test_the_last_admin_stays_one(store):
    store.add("ada", PASSWORD, roles=["admin"])
    store.add("eve", PASSWORD, roles=["viewer", "dagster=admin"])
    with pytest.raises(AccountRefused, match="last admin"):
        store.set_roles("ada", ["viewer"])
    with pytest.raises(AccountRefused, match="last admin"):
        store.disable("ada")
    store.set_roles("eve", ["admin"])
    store.disable("ada")
    with pytest.raises(AccountRefused, match="last admin"):
        store.set_roles("eve", ["editor"])


def test_accounts_made_at_once_are_all_kept(store, tmp_path):
    def add(number):
        AccountStore(Settings(home=tmp_path)).add(f"person{number}", PASSWORD, roles=["viewer"])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [account.name for account in store.accounts()] == [f"person{number}" for number in range(4)]


def test_a_damaged_file_is_said_to_be_one_and_left(store):
    store.add("ada", PASSWORD, roles=["admin"])
    store.path.write_text("{")
    with pytest.raises(ValueError, match="restore it from a backup"):
        AccountStore(store._settings).accounts()
    with pytest.raises(ValueError, match="restore it from a backup"):
        store.add("eve", PASSWORD, roles=["admin"])
    assert store.path.read_text() == "{"


def test_files_that_are_gone_do_not_let_anybody_in_who_was_out(store):
    """An open server keeps the accounts it knows, as serving keeps its keys."""
    store.add("ada", PASSWORD, roles=["viewer"])
    assert store.get("ada") is not None
    store.path.unlink()
    assert store.get("ada") is not None
    assert store.get("eve") is None


def test_a_password_is_the_same_however_a_keyboard_composes_its_letters():
    composed, apart = "gr\u00fcne Katze im Haus", "gru\u0308ne Katze\u00a0im Haus"
    assert is_right(apart, hashed(composed))
    assert is_right(composed, hashed(apart))
    assert not is_right("\ud800" * 12, hashed(composed))
    with pytest.raises(PasswordRefused):
        check_new("correct horse\ud800", "ada")


def test_accounts_are_an_admins_where_the_platform_asks_for_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    run = CliRunner().invoke
    add = ["add", "ada", "--role", "admin"]
    assert run(app, ["add", "old", "--role", "admin"], input=PASSWORD + "\n").exit_code == 0
    keys = KeyStore(tmp_path / "keys")
    _, admin = keys.create("chief", roles=["admin"])
    _, other = keys.create("trainer", roles=["promote"])
    commands = (
        add, ["list"], ["role", "old", "--role", "viewer"], ["password", "old"], ["disable", "old"],
        ["enable", "old"], ["sessions"], ["sessions", "old", "--end"],
    )  # fmt: skip
    for key in ("", other, "mlp_wrong"):
        monkeypatch.setenv("ML_PLATFORM_KEY", key)
        for command in commands:
            refused = run(app, command, input=PASSWORD + "\n")
            assert refused.exit_code == 1, command
            assert "ml-platform keys create" in refused.output
    assert [one.name for one in AccountStore(Settings(home=tmp_path)).accounts()] == ["old"]
    monkeypatch.setenv("ML_PLATFORM_KEY", admin)
    assert run(app, add, input=PASSWORD + "\n").exit_code == 0
    lines = [
        json.loads(line) for path in (tmp_path / "audit").glob("*.jsonl") for line in path.read_text().splitlines()
    ]
    added = {line["detail"][:3]: line["name"] for line in lines if line["action"] == "account added"}
    assert added == {"old": getpass.getuser(), "ada": "service:chief"}


def test_a_file_of_accounts_that_is_gone_or_cut_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    run = CliRunner().invoke
    assert "everything" in run(app, ["list"]).output
    store = AccountStore(Settings(home=tmp_path))
    store.add("ada", PASSWORD, roles=["admin"])
    kept = store.path.read_bytes()
    store.path.unlink()
    assert "still want a sign-in" in " ".join(run(app, ["list"]).output.split())
    for text in (b"", kept[:-20], kept.replace(b"argon", b"\xff\xfe")):
        store.path.write_bytes(text)
        for command in (["list"], ["disable", "ada"], ["add", "bob", "--role", "viewer"]):
            told = run(app, command, input=PASSWORD + "\n")
            assert told.exit_code == 1
            assert isinstance(told.exception, SystemExit)
            assert "restore it from a backup" in " ".join(told.output.split())
