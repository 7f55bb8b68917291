"""Only an environment's promoters change at a terminal what it serves."""

import os
import pwd
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.governance.access.changes import with_grants
from ml_platform.governance.access.policy import Grant
from ml_platform.governance.access.store import PolicyStore
from ml_platform.governance.keys import KeyStore
from ml_platform.processes.identity import this_user
from ml_platform.promotion.promoters import MayNotPromote, promoter
from ml_platform.settings import Settings


def test_the_user_of_the_process_counts_and_not_what_variables_say(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("LOGNAME", "ada")
    assert promoter(Settings(home=tmp_path)) == me
    assert promoter(Settings(home=tmp_path, promoters=("ada", me))) == me
    with pytest.raises(MayNotPromote, match=f"{me} may not change what is served .* names ada; ask one of them"):
        promoter(Settings(home=tmp_path, promoters=("ada",)))


@pytest.mark.parametrize(
    "command", [["promote", "late", "1", "--reason", "x"], ["rollback", "late"], ["traffic", "late", "1=100%"]]
)
def test_commands_refuse_others(command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_PROMOTERS", "ada, ben")
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "may not change what is served" in refused.output
    assert list(tmp_path.iterdir()) == []


def test_where_an_admin_has_a_key_a_promoter_needs_one_for_the_model_and_is_named_by_it(tmp_path):
    keys = KeyStore(tmp_path / "keys")
    root, releaser = (keys.create(name, roles=[role])[1] for name, role in (("ada", "admin"), ("ci", "promote")))
    other = keys.create("other", roles=["promote"], models=["rent"])[1]
    me = this_user()
    with pytest.raises(MayNotPromote, match="asks for a key"):
        promoter(Settings(home=tmp_path), "flight_delay")
    with pytest.raises(MayNotPromote, match="lacks the role"):
        promoter(Settings(home=tmp_path, key=SecretStr(other)), "flight_delay")
    with pytest.raises(MayNotPromote, match="lacks the role"):
        promoter(Settings(home=tmp_path, key=SecretStr(other)))  # for all models
    for token, name in ((root, "ada"), (releaser, "ci")):
        assert promoter(Settings(home=tmp_path, key=SecretStr(token)), "flight_delay") == f"{name} ({me})"


def test_under_a_policy_a_promoter_needs_the_grant_too(tmp_path):
    keys = KeyStore(tmp_path / "keys")
    token = keys.create("ci", roles=["promote"])[1]
    settings = Settings(home=tmp_path, key=SecretStr(token))
    given = Grant(privilege="promote", object="model:rent", principal="service:ci", at=datetime(2026, 1, 1, tzinfo=UTC))
    PolicyStore(settings.access_dir).change(lambda document: with_grants(document, [given]), "", "", by="x")
    assert promoter(settings, "rent") == f"ci ({this_user()})"
    with pytest.raises(MayNotPromote, match="ml-platform grant promote on endpoint:flight_delay to service:ci"):
        promoter(settings, "flight_delay")
    with pytest.raises(MayNotPromote, match="'train' on endpoint:rent"):
        promoter(settings, "rent", "train")
