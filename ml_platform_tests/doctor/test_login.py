from ml_platform.doctor.login import login
from ml_platform.login.accounts import AccountStore
from ml_platform.settings import Settings

PASSWORD = "correct horse battery"


def findings(settings):
    return [(one.status, one.message) for one in login(settings)]


def test_an_open_platform_is_said_to_be_open(tmp_path):
    [(status, message)] = findings(Settings(home=tmp_path))
    assert (status, "nobody signs in" in message) == ("ok", True)


def test_accounts_without_an_admin_and_none_at_all_are_found(tmp_path):
    settings = Settings(home=tmp_path)
    store = AccountStore(settings)
    store.add("ada", PASSWORD, roles=["viewer"])
    assert [status for status, _ in findings(settings)] == ["warning"]
    store.set_roles("ada", ["admin"])
    assert findings(settings) == [("ok", "1 accounts may sign in")]
    store.path.write_text('{"accounts": []}')
    assert [status for status, _ in findings(settings)] == ["error"]
    store.path.write_text("{")
    assert [status for status, _ in findings(settings)] == ["error"]


def test_damaged_sessions_are_found_with_what_to_do(tmp_path):
    settings = Settings(home=tmp_path)
    AccountStore(settings).add("ada", PASSWORD, roles=["admin"])
    (settings.login_dir / "sessions.db").write_bytes(b"no database " * 1000)
    [(status, message)] = findings(settings)
    assert status == "error"
    assert "remove it" in message
