"""People of the login at the prediction server: whom it believes, and what their roles may there."""

import time
from pathlib import Path

import msgspec
import pytest
from starlette.testclient import TestClient

from ml_platform.gateway_identity import ROLES, GatewaySigner, Identity, _Payload, _text
from ml_platform.governance.access.policy import Document, Grant, Policy
from ml_platform.serving.access.gateway import PersonCaller
from ml_platform.serving.access.governed import GovernedCaller
from ml_platform.serving.app import create_app
from ml_platform.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def as_person(signer: GatewaySigner, role: str, audience: str = "console") -> dict[str, str]:
    return {"authorization": signer.header(Identity("ada", role, ("analysts",)), audience)}


def test_where_people_sign_in_nothing_is_open_and_the_gateway_says_who_asks(settings):
    signer = GatewaySigner(settings.keys_dir, create=True)
    with TestClient(create_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        assert client.get("/models").status_code == 401
        assert client.get("/health/live").status_code == 200
        assert client.get("/models", headers=as_person(signer, "viewer")).status_code == 200
        assert client.post("/predict/m", json={}, headers={"x-api-key": "mlp_no"}).status_code == 401


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_what_the_keys_roles_of_it_may(settings, role):
    signer = GatewaySigner(settings.keys_dir, create=True)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        headers = as_person(signer, role)
        statuses = {
            "read": client.get("/models", headers=headers).status_code,
            "explain": client.post("/predict/m?explain=true", json={}, headers=headers).status_code,
            "promote": client.put("/endpoints/m", json={}, headers=headers).status_code,
        }
    allowed = {name for name, status in statuses.items() if status != 403}
    wanted = {"viewer": {"read"}, "launcher": {"read", "explain"}}
    assert allowed == wanted.get(role, {"read", "explain", "promote"})


def test_nobody_else_can_say_who_asks(settings, tmp_path):
    signer = GatewaySigner(settings.keys_dir, create=True)
    stranger = GatewaySigner(tmp_path / "elsewhere", create=True)
    ada = Identity("ada", "admin")

    def payload(seconds: float = 10) -> str:
        content = msgspec.json.encode(_Payload("console", time.time() + seconds, ada))
        return f"Gateway {_text(content)}.{_text(signer.mac('identity', content))}"

    good = payload()
    forged = [
        stranger.header(ada, "console"),
        signer.header(ada, "dagster"),
        payload(-60),
        payload(3600),
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.replace(".", ".."),
        good + ".x",
        "Gateway ",
        "Gateway .",
        "Gateway " + "x" * 10_000,
        f"Bearer {good.split()[1]}",
        f"{good}, {good}",
    ]
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert client.get("/models", headers={"authorization": good}).status_code == 200
        for header in forged:
            assert client.get("/models", headers={"authorization": header}).status_code == 401, header[:80]
            assert client.get("/models", headers={"x-api-key": header}).status_code == 401
        twice = [("authorization", good), ("authorization", good)]
        assert client.get("/models", headers=twice).status_code == 401


def test_under_an_access_policy_a_person_needs_the_privilege_as_well():
    grants = (Grant(privilege="predict", object="endpoint:rent", principal="group:analysts"),)
    policy = Policy(Document(grants=grants))
    ada = GovernedCaller(PersonCaller.of(Identity("ada", "launcher", ("analysts",))), policy)
    eve = GovernedCaller(PersonCaller.of(Identity("eve", "launcher")), policy)
    root = GovernedCaller(PersonCaller.of(Identity("root", "admin")), policy)
    assert (ada.principal.text, ada.may("predict", "rent"), ada.may("predict", "other")) == ("user:ada", True, False)
    assert not eve.may("predict", "rent")
    assert root.may("predict", "other")
