"""Signing in at an identity provider, a real one for tests, and what is not believed of it."""

import asyncio
import base64
import hashlib
import re
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ml_platform.login.oidc import Claims, Provider, SignInFailed
from ml_platform.login.settings import LoginSettings
from ml_platform_tests.login.gateway_world import world as make_world

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the provider's own libraries
ROLES = {"ml-team": "editor", "guests": "mlflow=viewer"}


@pytest.fixture(scope="module")
def issuer():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the provider's own libraries
        from oidc_provider_mock import User, run_server_in_thread

    users = [
        User(sub="ada@id", claims={"groups": ["ml-team", "staff"]}),
        User(sub="gus", claims={"groups": ["guests"]}),
        User(sub="nobody", claims={"groups": ["others"]}),
        User(sub="Viewer", claims={"groups": ["ml-team"]}),
    ]
    with run_server_in_thread(require_nonce=True, user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def world(tmp_path_factory, issuer):
    options = {"oidc_issuer": issuer, "oidc_client_id": "gateway", "oidc_client_secret": "s", "oidc_roles": ROLES}
    with make_world(tmp_path_factory.mktemp("oidc"), **options) as running:
        yield running


def to_provider(client, target="/dagster/runs"):
    """The provider's address that a person is sent to."""
    page = client.get("/-/login", params={"next": target}).text
    link = re.findall(r'href="(/-/oidc/start[^"]*)"', page)[0].replace("&amp;", "&")
    return client.get(link).headers["location"]


def back(address: str, person: str) -> str:
    """Where the provider sends a person who signs in there."""
    return httpx.post(address, data={"sub": person}, trust_env=False).headers["location"]


def sign_in(client, person):
    return client.get(back(to_provider(client), person))


def test_a_person_of_a_group_signs_in_and_has_its_role(world):
    with closing(world.client()) as client:
        answer = sign_in(client, "ada@id")
        assert (answer.status_code, answer.headers["location"]) == (303, "/dagster/runs")
        assert client.post("/dagster/graphql", json={"query": "mutation { startSensor { a } }"}).status_code == 200
        assert client.post("/dagster/graphql", json={"query": "mutation { deleteRun { a } }"}).status_code == 403
        assert "Change your password" not in client.get("/-/").text
    assert [line["name"] for line in world.audit() if line["action"] == "signed in"] == ["user:ada@id"]


def test_a_role_of_a_group_is_for_its_place(world):
    with closing(world.client()) as client:
        sign_in(client, "gus")
        assert (client.get("/mlflow/").status_code, client.get("/dagster/").status_code) == (200, 403)


@pytest.mark.parametrize(("person", "why"), [("nobody", "none of the groups"), ("Viewer", "there is a local account")])
def test_whom_no_group_lets_in_and_who_has_the_name_of_an_account_stay_out(world, person, why):
    with closing(world.client()) as client:
        answer = sign_in(client, person)
        assert answer.status_code == 403
        assert why in answer.text.lower()
        assert "ml_platform" not in client.cookies


def test_the_provider_is_asked_with_pkce_state_and_nonce(world):
    with closing(world.client()) as client:
        query = {name: value for name, [value] in parse_qs(urlsplit(to_provider(client)).query).items()}
    assert query["response_type"] == "code"
    assert query["code_challenge_method"] == "S256"
    assert query["redirect_uri"] == f"{world.url}/-/oidc/callback"
    assert min(len(query[name]) for name in ("state", "nonce", "code_challenge")) >= 43


def test_coming_back_counts_once_and_in_the_browser_that_began(world):
    with closing(world.client()) as mine, closing(world.client()) as other:
        address = back(to_provider(mine), "ada@id")
        to_provider(other)
        assert other.get(address).status_code == 403, "login CSRF: somebody else's sign-in"
        assert mine.get(address).status_code == 403, "and it is spent"
        address = back(to_provider(mine), "ada@id")
        assert mine.get(address).status_code == 303
        assert mine.get(address).status_code == 403
        for forged in ("/-/oidc/callback", "/-/oidc/callback?state=x&code=y", f"{address}&state=z"):
            assert mine.get(forged).status_code == 403


def test_another_issuer_in_the_answer_is_not_believed(world):
    with closing(world.client()) as client:
        address = back(to_provider(client), "ada@id")
        assert client.get(f"{address}&iss=https://evil.example").status_code == 403


def test_an_answer_to_another_sign_in_is_not_believed(issuer):
    """A stolen code: the nonce or the verifier is another one."""
    asyncio.run(_try_stolen_codes(issuer))


async def _try_stolen_codes(issuer):
    options = LoginSettings(oidc_issuer=issuer, oidc_client_id="gateway", oidc_client_secret="s", oidc_roles=ROLES)
    provider = Provider(options, "http://127.0.0.1:1/-/oidc/callback")

    async def code() -> tuple[str, dict[str, str]]:
        url, pending = await provider.begin()
        [code] = parse_qs(urlsplit(back(url, "ada@id")).query)["code"]
        return code, pending

    good, pending = await code()
    assert await provider.finish(good, pending, None) == Claims("ada@id", ("ml-team", "staff"))
    stolen, pending = await code()
    with pytest.raises(SignInFailed, match="another sign-in"):
        await provider.finish(stolen, {**pending, "nonce": "x" * 64}, None)
    # This provider does not compare the verifier itself: it must be the one of the challenge.
    url, pending = await provider.begin()
    [challenge] = parse_qs(urlsplit(url).query)["code_challenge"]
    digest = hashlib.sha256(pending["verifier"].encode()).digest()
    assert base64.urlsafe_b64decode(challenge + "=") == digest


def test_a_provider_that_is_away_or_another_is_said_to_be():
    from ml_platform_tests.ports import free_port

    options = LoginSettings(oidc_issuer=f"http://127.0.0.1:{free_port()}", oidc_client_id="g", oidc_roles=ROLES)
    with pytest.raises(SignInFailed, match="cannot be asked"):
        asyncio.run(Provider(options, "http://127.0.0.1:1/-/oidc/callback").begin())


@pytest.mark.parametrize(
    "options",
    [
        {"oidc_issuer": "http://id.example.com", "oidc_client_id": "g", "oidc_roles": ROLES},
        {"oidc_issuer": "https://id.example.com", "oidc_roles": ROLES},
        {"oidc_issuer": "https://id.example.com", "oidc_client_id": "g"},
        {"oidc_roles": {"a": "owner"}},
        {"url": "http://ml.example.com"},
        {"url": "https://ml.example.com/path"},
        {"url": "ml.example.com"},
        {"url": "https://user@ml.example.com"},
    ],
)
def test_settings_that_would_let_nobody_in_or_anybody_listen_are_refused(options):
    with pytest.raises(ValueError, match=r"wanted|wants"):
        LoginSettings(**options)
