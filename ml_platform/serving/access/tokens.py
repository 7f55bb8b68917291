"""Bearer tokens of an OpenID Connect issuer: signed JWTs, checked against its public keys, mapped to roles and models.

The keys come from the issuer's JWKS document. A thread fetches them, never the event loop: at the start, every few
minutes, and when a token names an unknown key (as after a rotation), but not more often than every
`oidc_refetch_seconds`. A verified token is remembered by its digest until it expires.
"""

import asyncio
import hashlib
import logging
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ml_platform.governance.keys import ALL_MODELS, includes_role
from ml_platform.governance.token_claims import claim_texts
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.settings import Grant, ServingSettings

if TYPE_CHECKING:
    from jwt import PyJWK

ALGORITHMS = ("RS256", "ES256", "EdDSA")  # asymmetric only: with HS256 a public key would serve as the secret
LEEWAY_SECONDS = 30  # allowed difference of clocks
_REFRESH_SECONDS = 300.0
_FETCH_SECONDS = 5.0
_JWKS_BYTES = 2**20
_TOKEN_CHARACTERS = 16_384
_REMEMBERED = 10_000
_PROBLEMS = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAudienceError": "it is for another audience",
    "InvalidIssuerError": "it is from another issuer",
    "InvalidAlgorithmError": f"its algorithm is none of {', '.join(ALGORITHMS)}",
    "InvalidSignatureError": "its signature is wrong",
}

logger = logging.getLogger("serving")


class TokenCaller(msgspec.Struct, frozen=True):
    """The caller that a token stands for, and what that caller may do; it answers what a `Key` does."""

    id: str
    name: str
    grants: tuple[Grant, ...]
    until: float  # seconds since 1970
    groups: tuple[str, ...] = ()  # values of the claim that holds roles or groups
    rate: float | None = None
    burst: int | None = None

    def has_role(self, role: str) -> bool:
        """Whether any grant includes a role."""
        return any(includes_role(grant.roles, role) for grant in self.grants)

    def covers(self, model: str) -> bool:
        """Whether any grant is for a model, or for all models when `model` is "*"."""
        return any(ALL_MODELS in grant.models or model in grant.models for grant in self.grants)

    def may(self, role: str, model: str) -> bool:
        """Whether one grant has both the role and the model."""
        return any(
            includes_role(grant.roles, role) and (ALL_MODELS in grant.models or model in grant.models)
            for grant in self.grants
        )


class Tokens:
    """Checks tokens. One per worker, for the event loop."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._keys: dict[str | None, PyJWK] = {}
        self._fetched = -1e9
        self._fetching = asyncio.Lock()
        self._document: bytes | None = None
        self._verified: dict[bytes, TokenCaller] = {}

    def remembered(self, token: str) -> TokenCaller | None:
        """The caller of a token that was verified before and has not expired."""
        digest = hashlib.sha256(token.encode()).digest()
        caller = self._verified.get(digest)
        if caller is not None and caller.until <= time.time():
            del self._verified[digest]
            return None
        return caller

    async def find(self, token: str) -> TokenCaller:
        """The caller of a token.

        Raises
        ------
        Refused
            401 for a token that is not valid here, 503 while there are no keys to check it with.
        """
        caller = self.remembered(token)
        if caller is None:
            caller = _caller(await self._verify(token), self._settings)
            if len(self._verified) >= _REMEMBERED:
                self._verified.pop(next(iter(self._verified)))
            self._verified[hashlib.sha256(token.encode()).digest()] = caller
        return caller

    async def watch(self) -> None:
        """Keep the keys fresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(_REFRESH_SECONDS if self._keys else self._settings.oidc_refetch_seconds)

    async def refresh(self) -> None:
        """Fetch the keys, unless that was tried a moment ago; when it fails, the known keys stay."""
        async with self._fetching:
            if time.monotonic() - self._fetched < self._settings.oidc_refetch_seconds:
                return
            self._fetched = time.monotonic()
            try:
                document = await asyncio.wait_for(
                    asyncio.to_thread(_load, self._settings.oidc_jwks), 2 * _FETCH_SECONDS
                )
                if document != self._document:
                    self._keys = await asyncio.to_thread(_public_keys, document)
                    self._document = document
                    self._verified.clear()  # tokens of a withdrawn key are no longer valid
            except (OSError, ValueError, TimeoutError) as error:
                where = self._settings.oidc_jwks
                logger.error("the keys of the token issuer cannot be read from %s: %s", where, error or "too slow")

    async def _verify(self, token: str) -> Mapping[str, Any]:
        import jwt

        if len(token) > _TOKEN_CHARACTERS:
            raise _invalid("it is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError
            key = await self._key(header.get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._settings.oidc_audience,
                issuer=self._settings.oidc_issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, OverflowError) as error:
            raise _invalid(_PROBLEMS.get(type(error).__name__, "it cannot be read")) from error
        return claims

    async def _key(self, kid: Any) -> "PyJWK":
        key = self._known(kid)
        if key is None:
            await self.refresh()
            key = self._known(kid)
        if key is None and not self._keys:
            wait = max(1, round(self._settings.oidc_refetch_seconds))
            message = "the token cannot be checked now: its issuer's keys cannot be read"
            raise Refused(503, "keys_unavailable", message, close=True, retry_after=wait)
        if key is None:
            raise _invalid("its issuer has no such key")
        return key

    def _known(self, kid: Any) -> "PyJWK | None":
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid) if isinstance(kid, str) else None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which could lead away from the configured address."""

    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: urllib then raises an error for the answer."""


def _load(source: str) -> bytes:
    """The JWKS document at a URL or path (raises OSError, ValueError)."""
    if "://" not in source:
        content = Path(source).read_bytes()
    else:
        with urllib.request.build_opener(_NoRedirect).open(source, timeout=_FETCH_SECONDS) as answer:
            content = answer.read(_JWKS_BYTES + 1)
    if len(content) > _JWKS_BYTES:
        raise ValueError(f"wanted a JWKS document, found more than {_JWKS_BYTES:,} bytes")
    return content


def _public_keys(document: bytes) -> dict[str | None, "PyJWK"]:
    """Keys of a JWKS document that may sign tokens, by id (raises ValueError)."""
    import jwt

    try:
        published = jwt.PyJWKSet.from_json(document.decode()).keys
    except (jwt.PyJWTError, AttributeError) as error:
        raise ValueError(f"not a JWKS document: {error}") from error
    keys = {
        key.key_id: key for key in published if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")
    }
    if not keys:
        raise ValueError(f"there is no key for {', '.join(ALGORITHMS)} in it")
    return keys


def _caller(claims: Mapping[str, Any], settings: ServingSettings) -> TokenCaller:
    claimed = claim_texts(claims, settings.oidc_claim)
    granted = tuple(settings.oidc_grants[value] for value in claimed if value in settings.oidc_grants)
    subject = str(claims["sub"])[:200]
    name = claims.get(settings.oidc_name_claim)
    return TokenCaller(
        id=f"sub:{subject}",
        name=name[:200] if isinstance(name, str) and name else subject,
        grants=granted,
        groups=claimed,
        until=float(claims["exp"]) + LEEWAY_SECONDS,
    )


def _invalid(problem: str) -> Refused:
    return Refused(401, "unauthenticated", f"the bearer token is not valid here: {problem}", close=True)
