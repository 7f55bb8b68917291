"""An issuer's keys and the tokens that it signs."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ml_platform_tests.serving.releases import MODEL

ISSUER, AUDIENCE = "https://issuer.example", "ml-serving"
GRANTS = {
    "analysts": {"roles": ["predict"], "models": [MODEL]},
    "others": {"roles": ["admin"], "models": ["other"]},
    "admins": {"roles": ["admin"]},
}
KEYS: dict[str, tuple[str, Any]] = {
    "rsa": ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "ec": ("ES256", ec.generate_private_key(ec.SECP256R1())),
    "ed": ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    "new": ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
}


def jwk(kid: str) -> dict[str, Any]:
    algorithm, key = KEYS[kid]
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": kid, "use": "sig", "alg": algorithm}


def configure(patch: pytest.MonkeyPatch, jwks: str, grants: Mapping[str, Any] = GRANTS, **more: str) -> None:
    """Let a server that is started now take the issuer's tokens."""
    values = {
        "issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks, "grants": json.dumps(grants),
        "claim": "realm_access.roles", "refetch_seconds": "0.3", **more,
    }  # fmt: skip
    for name, value in values.items():
        patch.setenv(f"ML_PLATFORM_SERVING_OIDC_{name.upper()}", value)


def claims(*roles: str, **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    found = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300,
        "realm_access": {"roles": list(roles or ("analysts",))}, **changed,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def token(*roles: str, kid: str = "rsa", headers: dict[str, Any] | None = None, **changed: Any) -> str:
    algorithm, key = KEYS[kid]
    return jwt.encode(claims(*roles, **changed), key, algorithm, headers={"kid": kid, **(headers or {})})


def encoded(part: dict[str, Any] | bytes) -> str:
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
