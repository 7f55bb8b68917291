"""Only an environment's promoters change at a terminal what it serves."""

import os
import pwd

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
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
