"""The commands of access: who may change what, what is refused, and that a terminal asks for a key where keys exist."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance.access.principals import Principal
from ml_platform.governance.access.published import FILE, Protections, ProtectionStore
from ml_platform.governance.access.store import PolicyStore, PolicyUnreadable
from ml_platform.governance.keys import KeyStore
from ml_platform.processes.identity import this_user
from ml_platform.promotion.promoters import promoter
from ml_platform.settings import Settings

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.delenv("ML_PLATFORM_KEY", raising=False)
    return tmp_path


@pytest.fixture
def run(home: Path) -> Run:
    def run(*words: str, key: str = "") -> Result:
        return CliRunner().invoke(app, list(words), env={"ML_PLATFORM_KEY": key} if key else None)

    return run


@pytest.fixture
def root(home: Path) -> str:
    return KeyStore(home / "keys").create("ada", roles=["admin"])[1]


@pytest.fixture
def job(home: Path) -> str:
    return KeyStore(home / "keys").create("nightly job", roles=["predict", "promote"], models=["flight_delay"])[1]


def test_a_policy_that_nobody_could_change_does_not_begin(home: Path, run: Run) -> None:
    result = run("grant", "select", "on", "raw.flights", "to", "user:bob")
    assert result.exit_code == 1
    assert "there is no valid key with role admin" in result.output
    assert not PolicyStore(home / "access").in_use()


def test_grants_are_kept_with_who_and_why_and_what_roles_gave_stays(home: Path, run: Run, root: str, job: str) -> None:
    words = ("grant", "select,browse", "on", "raw.flights", "to", "user:bob", "--days", "3", "--reason", "audit of May")
    result = run(*words, key=root)
    assert result.exit_code == 0, result.output
    grants = PolicyStore(home / "access").read().grants
    given = next(one for one in grants if one.principal == "user:bob" and one.privilege == "select")
    assert (given.by, given.reason, given.until is not None) == ("service:ada", "audit of May", True)
    kept = {(one.privilege, one.object) for one in grants if one.principal == "service:nightly job"}
    assert kept == {("predict", "model:flight_delay"), ("promote", "model:flight_delay")}
    assert "audit of May" in run("audit", "show", key=root).output


def test_sql_says_the_same(home: Path, run: Run, root: str) -> None:
    assert run("sql", "GRANT SELECT ON raw.flights TO `group:analysts`;", key=root).exit_code == 0
    assert run("access", "check", "select", "raw.flights.carrier", "--as", "user:bob", key=root).exit_code == 1
    run("groups", "add", "analysts", "user:bob", key=root)
    assert run("access", "check", "select", "raw.flights.carrier", "--as", "user:bob", key=root).exit_code == 0
    run("sql", "DENY SELECT ON COLUMN raw.flights.carrier TO 'user:bob'", key=root)
    assert run("access", "check", "select", "raw.flights.carrier", "--as", "user:bob", key=root).exit_code == 1
    assert run("sql", "REVOKE ALL PRIVILEGES ON raw.flights FROM `group:analysts`", key=root).exit_code == 0
    assert PolicyStore(home / "access").in_use()  # what has begun is not ended by a revocation


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("grant select on raw.fligts to user:bob", "did you mean raw.flights"),
        ("grant select on raw.flights.tailnumm to user:bob", "did you mean raw.flights.tailnum"),
        ("grant predict on model:flight_dela to user:bob", "did you mean model:flight_delay"),
        ("grant selct on raw.flights to user:bob", "did you mean select"),
        ("grant select on raw.flights to usr:bob", "did you mean user:bob"),
        ("grant select on raw.flights to service:nigthly", "no valid key is called"),
        ("grant predict on raw.flights to user:bob", "means nothing on raw.flights"),
        ("grant select raw.flights to user:bob", "wanted: ml-platform grant select on"),
        ("grant select on raw.flights to user:bob --days 0", "wanted more than 0"),
        ("grant select on raw.flights to user:bob --until 2001-01-01", "is past"),
        ("revoke select on raw.flights from user:bob", "has no grant or denial"),
        ("deny manage on platform to group:everyone", "deny manage on platform to group:everyone"),
        ("groups delete nobody", "there is no group nobody"),
        ("tags set raw pii", "tags are for tables and columns"),
        ("access namespace risk raw.* model:x tag:y", "a namespace contains"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(home: Path, run: Run, root: str, words: str, said: str) -> None:
    result = run(*words.split(" "), key=root)
    assert result.exit_code == 1
    assert said in result.output
    assert PolicyStore(home / "access").read().started is None


@pytest.mark.parametrize(
    "sql",
    ["GRANT SELECT ON raw.flights", "GRANT ON raw.flights TO `user:x`", "GRANT SELECT ON raw.flights TO user:x user:y",
     "GRANT SELECT ON raw.flights TO `user:x`; DROP TABLE raw.flights", "REVOKE SELECT ON raw.flights TO `user:x`",
     "GRANT SELECT ON raw.flights TO `user:x` WITH GRANT OPTION", "GRANT SELECT, ON raw.flights TO `user:x`",
     "GRANT SELECT ON raw.'flights' TO `user:x`", "GRANT SELECT ON raw.flights TO `user:x`, UNTIL '2030-01-01'"],
)  # fmt: skip
def test_sql_is_read_strictly(home: Path, run: Run, root: str, sql: str) -> None:
    assert run("sql", sql, key=root).exit_code == 1
    assert PolicyStore(home / "access").read().started is None


def test_who_may_not_manage_grants_nothing_and_learns_of_nothing(home: Path, run: Run, root: str, job: str) -> None:
    run("grant", "manage", "on", "features", "to", "service:nightly job", key=root)
    for words in ("grant select on raw.flights to user:bob", "grant select on raw.nothing to user:bob",
                  "groups add analysts user:bob", "access owner platform user:bob", "keys list",
                  "access check select raw.flights --as user:bob", "keys create bob --role admin"):  # fmt: skip
        result = run(*words.split(" "), key=job)
        assert result.exit_code == 1, words
        assert "lacks the privilege 'manage'" in result.output
        assert "did you mean" not in result.output
    assert run("grant", "select", "on", "features.origin_weather", "to", "user:bob", key=job).exit_code == 0


def test_a_terminal_without_a_key_changes_nothing(home: Path, run: Run, root: str) -> None:
    for words in ("keys list", "keys create bob --role predict", "promote flight_delay 1 --reason x",
                  "rollback flight_delay", "traffic flight_delay 1=100%", "run flight_delay", "access whoami",
                  "score flight_delay --from raw/flights --to scores/x", "models retire flight_delay --reason x --yes",
                  "approvals approve flight_delay 1 --reason x"):  # fmt: skip
        result = run(*words.split(" "))
        assert result.exit_code != 0, words
        assert "asks for a key" in result.output or "No such option" in result.output, (words, result.output)
    wrong = run("promote", "flight_delay", "1", "--reason", "x", key=root[:-3] + "abc")
    assert "no valid key of this platform" in wrong.output


def test_a_key_for_another_model_promotes_nothing(home: Path, run: Run, root: str) -> None:
    other = KeyStore(home / "keys").create("other", roles=["promote"], models=["rent"])[1]
    result = run("promote", "flight_delay", "1", "--reason", "x", key=other)
    assert "lacks the privilege 'promote' on endpoint:flight_delay" in result.output


def test_keys_without_an_admin_leave_the_terminal_as_it_was(home: Path, run: Run, job: str) -> None:
    assert promoter(Settings(), "flight_delay") == this_user()
    assert run("keys", "list").exit_code == 0


def test_whoever_has_the_files_makes_the_first_admin_and_the_next_when_none_is_left(home: Path, run: Run) -> None:
    first = run("keys", "create", "ada", "--role", "admin")
    assert first.exit_code == 0
    assert run("keys", "create", "eve", "--role", "admin").exit_code == 1
    [key] = KeyStore(home / "keys").keys()
    KeyStore(home / "keys").revoke(key.id)
    assert run("keys", "create", "eve", "--role", "predict").exit_code == 1
    assert run("keys", "create", "eve", "--role", "admin").exit_code == 0


def test_the_last_admin_of_a_policy_is_not_revoked(home: Path, run: Run, root: str) -> None:
    run("grant", "browse", "on", "platform", "to", "group:everyone", key=root)
    [key] = KeyStore(home / "keys").keys()
    assert "nobody could change the policy" in run("keys", "revoke", key.id, key=root).output
    assert run("keys", "rotate", key.id, key=root).exit_code == 0


def test_a_group_in_a_circle_is_refused_and_kept_out(home: Path, run: Run) -> None:
    run("groups", "add", "a", "group:b")
    assert "a → b → a" in re.sub(r"\s+", " ", run("groups", "add", "b", "group:a").output)
    assert PolicyStore(home / "access").read().groups == {"a": ("group:b",)}


def test_a_file_declares_and_takes_back_and_leaves_what_commands_gave(home: Path, run: Run, root: str) -> None:
    file = home / "access.yaml"
    file.write_text(
        "groups: {analysts: [user:bob]}\n"
        "grants:\n"
        "  - {privileges: select, objects: raw.flights, to: group:analysts}\n"
        "  - {privileges: [predict, explain], objects: model:flight_delay, to: user:bob, until: 2999-01-01}\n"
        "owners: {raw.weather: group:analysts}\n"
        "namespaces: {risk: {objects: ['model:risk_*'], owner: group:analysts}}\n"
    )
    would = run("access", "apply", str(file), "--dry-run", key=root)
    assert (would.exit_code, "+ grant select on raw.flights to group:analysts" in would.output) == (1, True)
    assert PolicyStore(home / "access").read().started is None
    assert run("access", "apply", str(file), key=root).exit_code == 0
    assert "is what access.yaml declares" in run("access", "apply", str(file), "--dry-run", key=root).output
    run("grant", "select", "on", "raw.airports", "to", "user:bob", key=root)
    assert run("access", "check", "manage", "model:risk_new", "--as", "user:bob", key=root).exit_code == 0
    assert "declares it" in run("revoke", "select", "on", "raw.flights", "from", "group:analysts", key=root).output
    file.write_text("groups: {analysts: [user:bob]}\n")
    assert "- grant select on raw.flights" in run("access", "apply", str(file), key=root).output
    assert [one.object for one in PolicyStore(home / "access").read().grants] == ["raw.airports"]


def test_mistakes_of_the_file_are_told_with_their_lines(home: Path, run: Run, root: str) -> None:
    file = home / "access.yaml"
    file.write_text("grants:\n  - {privileges: select, objects: raw.flights, too: user:bob}\n")
    assert "access.yaml:2" in run("access", "apply", str(file), key=root).output
    file.write_text("grants:\n  - {privileges: select, objects: raw.flight, to: user:bob}\n")
    assert "did you mean raw.flights" in run("access", "apply", str(file), key=root).output


def test_a_tag_is_removed_with_a_reason_by_who_manages(home: Path, run: Run, root: str, job: str) -> None:
    assert run("tags", "set", "raw.flights.tailnum", "pii", key=root).exit_code == 0
    run("grant", "select", "on", "raw.flights", "to", "service:nightly job", key=root)
    refused = run("tags", "remove", "raw.flights.tailnum", "pii", "--reason", "no", key=job)
    assert "lacks the privilege 'manage'" in refused.output
    assert run("tags", "remove", "raw.flights.tailnum", "pii", key=root).exit_code == 2
    assert "with a reason" in run("tags", "remove", "raw.flights.tailnum", "pii", "--reason", " ", key=root).output
    assert run("tags", "remove", "raw.flights.tailnum", "pii", "--reason", "public register", key=root).exit_code == 0
    assert "public register" in run("tags", "list", key=root).output


def test_a_damaged_policy_allows_nothing_and_says_so(home: Path, run: Run, root: str) -> None:
    run("grant", "browse", "on", "platform", "to", "group:everyone", key=root)
    (home / "access" / "policy.json").write_text(json.dumps({"grants": 3}))
    result = run("access", "list", key=root)
    assert result.exit_code == 1
    assert "not an access policy" in result.output


def test_what_views_protect_is_published_with_the_first_grant_and_follows_tags(home: Path, run: Run, root: str) -> None:
    assert run("grant", "use_feature", "on", "features", "to", "user:bob", key=root).exit_code == 0
    published = msgspec.json.decode((home / "access" / FILE).read_bytes(), type=Protections)
    view = published.tables["features/carrier_reliability"]
    assert {"carrier", "arr_late_share_30d"} <= {*view.columns}
    assert view.event_time in view.columns
    bob, policy, store = Principal("bob", "user"), PolicyStore(home / "access"), ProtectionStore(home / "access")
    assert not store.access(policy.policy, bob, "carrier_reliability").hidden
    assert run("tags", "set", "raw.flights.arr_delay", "pii", key=root).exit_code == 0
    access = ProtectionStore(home / "access").access(PolicyStore(home / "access").policy, bob, "carrier_reliability")
    assert "arr_late_share_30d" in access.hidden  # the share of what is computed of the tagged
    assert not {"carrier", "dep_late_share_3h"} & access.hidden


def test_a_policy_whose_file_is_lost_stays_in_force_until_it_is_stopped(home: Path, run: Run, root: str) -> None:
    assert run("grant", "browse", "on", "raw.flights", "to", "user:bob", key=root).exit_code == 0
    file = home / "access" / "policy.json"
    kept = file.read_bytes()
    file.unlink()
    for words in (("sql", "SELECT 1"), ("access", "list"), ("grant", "browse", "on", "raw.flights", "to", "user:eve")):
        result = run(*words, key=root)
        assert result.exit_code == 1, result.output
        assert "is lost while an access policy is in force" in str(result.output or result.exception)
    with pytest.raises(PolicyUnreadable, match="restore it from a backup"):
        PolicyStore(home / "access").in_use()
    file.write_bytes(kept)
    assert run("access", "list", key=root).exit_code == 0
    assert run("access", "stop", "--reason", "tried", key=root).exit_code == 0
    file.unlink()
    assert not PolicyStore(home / "access").in_use()


def test_a_refusal_tells_nothing_of_what_is_hidden(home: Path, run: Run, root: str) -> None:
    assert run("access", "owner", "raw.planes", "group:sales", key=root).exit_code == 0
    assert run("grant", "browse", "on", "raw.flights", "to", "user:bob", key=root).exit_code == 0
    key = KeyStore(home / "keys").create("new", roles=["predict"])[1]
    told = []
    for name in ("raw.planes", "raw.airports"):
        result = run("grant", "select", "on", name, "to", "user:eve", key=key)
        assert result.exit_code == 1
        told.append(result.output.replace(name, "…"))
    assert told[0] == told[1]
    assert "sales" not in told[0]
