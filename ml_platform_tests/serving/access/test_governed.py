"""Keys and tokens under an access policy: roles and grants both decide, at once, and no path leads around."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_platform.governance.access import store as policy_store
from ml_platform.governance.access.changes import with_grants, with_group
from ml_platform.governance.access.commands import grants_of_keys
from ml_platform.governance.access.policy import Document, Grant, Policy
from ml_platform.governance.access.store import PolicyStore
from ml_platform.governance.keys import KeyStore
from ml_platform.serving.access.authorization import Access
from ml_platform.serving.access.governed import GovernedCaller, principal_of
from ml_platform.serving.access.tokens import TokenCaller
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.settings import Grant as RoleGrant
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def scope(path: str, token: str, method: str = "POST", query: bytes = b"") -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
    return {"method": method, "path": path, "query_string": query, "headers": headers, "client": ("127.0.0.1", 1)}


def granting(*grants: Grant) -> Callable[[Document], Document]:
    return lambda document: with_grants(document, grants)


def grant(privilege: str, on: str, to: str, *, denies: bool = False, until: datetime | None = None) -> Grant:
    return Grant(privilege=privilege, object=on, principal=to, denies=denies, until=until, at=NOW)


@pytest.fixture
def policy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> PolicyStore:
    monkeypatch.setattr(policy_store, "RELOAD_SECONDS", 0.0)
    return PolicyStore(settings.access_dir)


@pytest.fixture
def access(settings: Settings, policy: PolicyStore) -> Access:
    return Access(KeyStore(settings.keys_dir), lambda: MODEL, policy=policy)


def opens(access: Access, *request: Any, **options: Any) -> bool:
    """Whether a request passes, by what is remembered or by a check, as the server asks."""
    if access.recall(scope(*request, **options)) is not None:
        return True
    try:
        asyncio.run(access.check(scope(*request, **options)))
    except Refused as refused:
        if refused.status != 403:
            raise
        return False
    return True


def test_role_and_grant_are_both_needed(settings: Settings, access: Access, policy: PolicyStore) -> None:
    _, token = KeyStore(settings.keys_dir).create("job", roles=["predict"], models=["a", "b"])
    assert opens(access, "/predict/a", token)  # without a policy the role decides
    policy.change(
        granting(grant("predict", "model:a", "service:job"), grant("promote", "model:a", "service:job")), "", "", by="x"
    )
    assert opens(access, "/predict/a", token)
    assert not opens(access, "/predict/b", token)  # role without grant
    assert not opens(access, "/endpoints/a", token, method="PUT")  # grant without role
    assert not opens(access, "/predict/a", token, query=b"explain=true")
    assert not opens(access, "/predict/c", token)


@pytest.mark.parametrize(
    "path", ["/predict/b", "/endpoints/b/invocations", "/serving-endpoints/b/invocations", "/v2/models/b/infer",
             "/models/b/predict"],
)  # fmt: skip
def test_every_protocol_asks_for_the_grant(settings: Settings, access: Access, policy: PolicyStore, path: str) -> None:
    _, token = KeyStore(settings.keys_dir).create("job", roles=["explain", "promote"], models=["*"])
    policy.change(granting(grant("predict", "endpoint:a", "service:job")), "", "", by="x")
    assert not opens(access, path, token)


def test_a_remembered_request_ends_with_the_grant(settings: Settings, access: Access, policy: PolicyStore) -> None:
    _, token = KeyStore(settings.keys_dir).create("job", roles=["predict"])
    policy.change(granting(grant("predict", "platform", "group:everyone")), "", "", by="x")
    assert opens(access, "/predict/a", token)
    assert access.recall(scope("/predict/a", token)) is not None
    policy.change(granting(grant("predict", "model:a", "service:job", denies=True)), "", "", by="x")
    assert access.recall(scope("/predict/a", token)) is None
    assert not opens(access, "/predict/a", token)
    assert opens(access, "/predict/b", token)


def test_a_grant_that_has_ended_ends_what_is_remembered(
    settings: Settings, policy: PolicyStore, access: Access
) -> None:
    _, token = KeyStore(settings.keys_dir).create("job", roles=["predict"])
    past = datetime.now(UTC) - timedelta(seconds=1)
    policy.change(granting(grant("predict", "model:a", "service:job", until=past)), "", "", by="x")
    assert policy.in_use()
    assert not opens(access, "/predict/a", token)


def test_admins_are_not_asked_for_grants_and_a_denial_binds_them_too(
    settings: Settings, access: Access, policy: PolicyStore
) -> None:
    _, root = KeyStore(settings.keys_dir).create("root", roles=["admin"])
    _, half = KeyStore(settings.keys_dir).create("half", roles=["admin"], models=["a"])
    policy.change(granting(grant("predict", "model:a", "group:everyone")), "", "", by="x")
    assert opens(access, "/predict/b", root)
    assert not opens(access, "/endpoints/a", half, method="PUT")  # an admin of one model has what is granted
    policy.change(granting(grant("predict", "model:b", "service:root", denies=True)), "", "", by="x")
    assert not opens(access, "/predict/b", root)


def test_features_and_pushes_ask_for_their_own_privileges(
    settings: Settings, access: Access, policy: PolicyStore
) -> None:
    _, token = KeyStore(settings.keys_dir).create("app", roles=["predict", "push"])
    grants = [grant("use_feature", "features.a", "service:app"), grant("modify", "features.b", "service:app")]
    policy.change(granting(*grants), "", "", by="x")
    assert opens(access, "/features/a/lookup", token)
    assert not opens(access, "/features/b/lookup", token)
    assert opens(access, "/features/b", token)
    assert not opens(access, "/features/a", token)


def test_lists_show_what_is_granted(settings: Settings, access: Access, policy: PolicyStore) -> None:
    _, token = KeyStore(settings.keys_dir).create("app", roles=["predict"])
    policy.change(granting(grant("explain", "model:a", "service:app")), "", "", by="x")
    listing = scope("/models", token, method="GET")
    asyncio.run(access.check(listing))
    context = RequestContext.of(listing)
    assert (context.covers("a"), context.covers("b"), context.covers("*")) == (True, False, False)


def test_a_token_is_a_person_in_the_groups_that_it_claims() -> None:
    grants = (grant("predict", "model:a", "group:staff"),)
    policy = Policy(Document(started=NOW, grants=grants, groups={"staff": ("group:ml-analysts",)}))
    token = TokenCaller(
        id="sub:1", name="ada", grants=(RoleGrant(roles=("predict",)),), until=9e9, groups=("ml-analysts", "a:b")
    )
    caller = GovernedCaller(token, policy)
    assert (caller.may("predict", "a"), caller.may("predict", "b"), caller.may("promote", "a")) == (True, False, False)
    assert principal_of(token, policy).groups == {"ml-analysts", "staff"}
    nobody = TokenCaller(id="sub:2", name="x:y", grants=(RoleGrant(roles=("admin",)),), until=9e9)
    assert not GovernedCaller(nobody, policy).may("predict", "a")


def test_what_roles_allowed_is_granted_when_a_policy_begins(
    settings: Settings, access: Access, policy: PolicyStore
) -> None:
    keys = KeyStore(settings.keys_dir)
    tokens = {
        name: keys.create(name, roles=roles, models=models)[1]
        for name, roles, models in (
            ("job", ["predict"], ["a"]), ("all", ["explain"], ["*"]), ("lookups", ["predict"], ["features/v"]),
            ("pusher", ["push"], ["*"]), ("releaser", ["promote"], ["a"]),
        )
    }  # fmt: skip
    requests = [
        ("/predict/a", "POST", b""), ("/predict/b", "POST", b""), ("/predict/a", "POST", b"explain=true"),
        ("/models/a", "GET", b""), ("/metrics", "GET", b""), ("/features/v/lookup", "POST", b""),
        ("/features/v", "POST", b""), ("/endpoints/a", "PUT", b""), ("/features/w/lookup", "POST", b""),
        ("/endpoints/b", "PUT", b""), ("/models", "GET", b""),
    ]  # fmt: skip

    def answers() -> list[bool]:
        return [
            opens(access, path, token, method=method, query=query)
            for token in tokens.values()
            for path, method, query in requests
        ]

    before = answers()
    assert True in before
    assert False in before
    policy.change(granting(*grants_of_keys(keys.keys(), now=NOW, by="x")), "", "", by="x")
    assert policy.in_use()
    assert answers() == before


def test_a_policy_that_cannot_be_read_opens_nothing(settings: Settings, serve: Callable[..., Server]) -> None:
    fill_online_store(settings)
    publish(settings, 1)
    _, token = KeyStore(settings.keys_dir).create("job", roles=["predict"])
    policy = PolicyStore(settings.access_dir)
    policy.change(lambda document: with_group(document, "staff", add=["service:job"]), "", "", by="x")
    policy.change(granting(grant("predict", f"model:{MODEL}", "group:staff")), "", "", by="x")
    server = serve(settings)

    def status() -> int:
        return server.client.post(f"/predict/{MODEL}", json=ROW, headers=bearer(token)).status_code

    assert status() == 200
    policy.path.write_text('{"grants": [')
    server.wait_until(lambda _client: status() == 503)
