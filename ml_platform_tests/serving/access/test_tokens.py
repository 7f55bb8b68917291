"""Tokens of an issuer: good ones open what their roles are for, and each kind of bad one opens nothing."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from ml_platform.governance.keys import KeyStore
from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server, bearer, start_server
from ml_platform_tests.serving.issuing import KEYS, claims, configure, encoded, jwk, token
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish


class Issuer:
    """A JWKS document on loopback, and how often it was asked for."""

    def __init__(self) -> None:
        self.document: bytes = b""
        self.asked = 0
        self.publish("rsa", "ec", "ed")
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(issuer.document)))
                self.end_headers()
                self.wfile.write(issuer.document)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def publish(self, *kids: str, **extra: Any) -> None:
        self.document = json.dumps({"keys": [jwk(kid) for kid in kids] + extra.get("more", [])}).encode()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.stop()


@pytest.fixture(scope="module")
def server(module_settings: Settings, issuer: Issuer) -> Iterator[Server]:
    fill_online_store(module_settings)
    publish(module_settings, 1)
    with pytest.MonkeyPatch.context() as patch:
        configure(patch, issuer.url)
        server = start_server(module_settings)
    yield server
    server.stop()


def hs256_with_the_public_key(kid: str = "rsa") -> str:
    """What a verifier takes that lets the token choose how its key is used."""
    public = KEYS[kid][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{encoded(claims('admins'))}"
    return f"{signed}.{encoded(hmac.new(public, signed.encode(), hashlib.sha256).digest())}"


def tampered() -> str:
    head, _, signature = token("analysts").split(".")
    return f"{head}.{encoded(claims('admins'))}.{signature}"


def ask(server: Server, text: str, path: str = f"/predict/{MODEL}") -> tuple[int, str]:
    answer = server.client.post(path, json=ROW, headers=bearer(text))
    return answer.status_code, answer.text


@pytest.mark.parametrize("kid", ["rsa", "ec", "ed"])
def test_a_good_token_opens_what_its_role_is_for(server: Server, kid: str) -> None:
    good = token(kid=kid)
    for _ in range(2):  # verified, then remembered
        assert ask(server, good)[0] == 200
    assert ask(server, good, "/predict/other")[0] == 403
    assert ask(server, good, f"/predict/{MODEL}?features=true")[0] == 403
    assert server.client.get("/metrics", headers=bearer(good)).status_code == 403


def test_roles_of_one_group_do_not_spread_to_the_models_of_another(server: Server) -> None:
    both = token("analysts", "others", "unheard of")
    assert ask(server, both)[0] == 200
    assert ask(server, both, f"/predict/{MODEL}?features=true")[0] == 403
    assert ask(server, both, "/predict/other?features=true")[0] == 404  # let in: there is no such model
    assert ask(server, token("admins"), f"/predict/{MODEL}?features=true")[0] == 200
    assert "lacks the role" in ask(server, token("unheard of"))[1]


BAD: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: token(exp=int(time.time()) - 60), "expired"),
    "not valid yet": (lambda: token(nbf=int(time.time()) + 300), "not valid yet"),
    "wrong audience": (lambda: token(aud="another"), "another audience"),
    "wrong issuer": (lambda: token(iss="https://evil.example"), "another issuer"),
    "without end": (lambda: token(exp=None), "cannot be read"),
    "without subject": (lambda: token(sub=None), "cannot be read"),
    "without audience": (lambda: token(aud=None), "cannot be read"),
    "unknown kid": (lambda: token(headers={"kid": "nobody's"}), "no such key"),
    "no kid": (lambda: jwt.encode(claims(), KEYS["rsa"][1], "RS256"), "no such key"),
    "kid of another key": (lambda: token(kid="rsa", headers={"kid": "ec"}), "signature|algorithm"),
    "alg none": (lambda: f"{encoded({'alg': 'none', 'kid': 'rsa'})}.{encoded(claims('admins'))}.", "algorithm"),
    "HS256 with the public key": (hs256_with_the_public_key, "algorithm"),
    "RS512": (lambda: jwt.encode(claims(), KEYS["rsa"][1], "RS512", headers={"kid": "rsa"}), "algorithm"),
    "tampered": (tampered, "signature is wrong"),
    "signed by a stranger": (lambda: token(kid="new", headers={"kid": "rsa"}), "signature is wrong"),
    "a key of its own": (lambda: token(kid="new", headers={"kid": "new", "jwk": jwk("new")}), "no such key"),
    "a key from elsewhere": (lambda: token(kid="new", headers={"jku": "http://127.0.0.1:1/"}), "no such key"),
    "no base64": (lambda: "a.b.c", "cannot be read"),
    "endless end": (lambda: token(exp=float("inf")), "cannot be read"),
    "a deep header": (lambda: f"{encoded(b'[' * 9000)}.a.b", "cannot be read"),
    "too long": (lambda: token(padding="x" * 20_000), "too long"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_401_and_told_why(server: Server, kind: str) -> None:
    make, told = BAD[kind]
    status, text = ask(server, make())
    assert status == 401
    assert any(words in json.loads(text)["error"]["message"] for words in told.split("|"))
    assert "admins" not in text
    assert "Traceback" not in text
    assert ask(server, token())[0] == 200


def test_a_little_clock_skew_is_forgiven(server: Server) -> None:
    assert ask(server, token(exp=int(time.time()) - 2))[0] == 200
    assert ask(server, token(nbf=int(time.time()) + 2))[0] == 200


def test_the_audit_log_names_the_tokens_subject(server: Server, module_settings: Settings) -> None:
    ask(server, token(sub="grace"))
    folder, wanted = module_settings.audit_dir, '"key":"sub:grace","name":"grace"'  # written after the answer has left
    server.wait_until(lambda _: any(wanted in path.read_text() for path in folder.glob("*.jsonl")))


def test_api_keys_work_beside_tokens(server: Server, module_settings: Settings) -> None:
    _, key = KeyStore(module_settings.keys_dir).create("job", roles=["predict"])
    server.wait_until(lambda _: ask(server, key)[0] == 200)
    assert ask(server, token())[0] == 200
    assert ask(server, "neither.of.both")[0] == 401


def test_a_rotated_key_is_found_and_a_withdrawn_one_ends(server: Server, issuer: Issuer) -> None:
    old, fresh = token(), token(kid="new")
    assert ask(server, old)[0] == 200
    assert ask(server, fresh)[0] == 401
    issuer.publish("new", "ec", more=[{"kty": "oct", "k": "c2VjcmV0", "kid": "secret"}, {"kty": "?"}])
    server.wait_until(lambda _: ask(server, fresh)[0] == 200)
    assert ask(server, old)[0] == 401
    issuer.document = b"<html>"  # an issuer out of order takes nothing away
    before = issuer.asked

    def is_refused_by_a_new_look(_client: httpx.Client) -> bool:
        return ask(server, token(headers={"kid": "nobody's"}))[0] == 401 and issuer.asked > before

    server.wait_until(is_refused_by_a_new_look)
    assert ask(server, token(kid="new", jti="2"))[0] == 200
    issuer.publish("rsa", "ec", "ed")
    server.wait_until(lambda _: ask(server, token())[0] == 200)


def test_unknown_keys_do_not_make_the_server_ask_the_issuer_each_time(
    settings: Settings, serve: Callable[..., Server], issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, issuer.url, refetch_seconds="3600")
    server = serve(settings)
    server.wait_until(lambda _: ask(server, token(), "/predict/other")[0] == 403)
    asked = issuer.asked
    for number in range(20):
        assert ask(server, token(headers={"kid": str(number)}))[0] == 401
    assert issuer.asked == asked


def test_without_the_issuers_keys_it_says_so_and_starts_to_work_when_they_come(
    settings: Settings, serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jwks.json"
    configure(monkeypatch, str(path))
    server = serve(settings)
    answer = server.client.get("/models", headers=bearer(token("admins")))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keys_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert str(tmp_path) not in answer.text
    path.write_text(json.dumps({"keys": [jwk("ed")]}))
    unnamed = jwt.encode(claims("admins"), KEYS["ed"][1], "EdDSA")  # one key only: there is no other to mean
    headers = bearer(unnamed)
    server.wait_until(lambda client: client.get("/models", headers=headers).status_code == 200)
    assert server.client.get("/models").status_code == 401


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("jwks", "http://issuer.example/jwks", "https://"),
        ("jwks", "ftp://issuer.example/jwks", "https://"),
        ("audience", "", "oidc_audience"),
        ("grants", "{}", "oidc_grants"),
        ("grants", '{"a": {"roles": ["root"]}}', "found root"),
        ("grants", '{"a": {"roles": ["predict"], "model": ["x"]}}', "model"),
    ],
)
def test_mistaken_settings_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    configure(monkeypatch, "jwks.json")
    assert ServingSettings().oidc_grants["analysts"].models == (MODEL,)
    monkeypatch.setenv(f"ML_PLATFORM_SERVING_OIDC_{name.upper()}", value)
    with pytest.raises(ValidationError, match=told):
        ServingSettings()
