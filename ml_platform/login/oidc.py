"""Signing in at an identity provider: OpenID Connect's authorization code with PKCE, state and nonce."""

import asyncio
import base64
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from ml_platform.governance.token_claims import claim_texts
from ml_platform.login.settings import LoginSettings, is_loopback

PENDING_SECONDS = 600.0  # from being sent to the provider until coming back
ALGORITHMS = ("RS256", "ES256", "EdDSA")  # asymmetric only: with HS256 a public key would serve as the secret
CALLBACK = "/-/oidc/callback"
_DOCUMENT_SECONDS = 3600.0
_REFETCH_SECONDS = 10.0
_TIMEOUT = 10.0
_LEEWAY = 30
_NAME = re.compile(r"[^:`\"'\\/\s](?:[^:`\"'\\/]{0,198}[^:`\"'\\/\s])?")  # as grants name people
_CHECKS = {
    "ExpiredSignatureError": "the provider's answer has expired",
    "InvalidAudienceError": "the provider's answer is for another client",
    "InvalidIssuerError": "the provider's answer is from another issuer",
    "InvalidSignatureError": "the signature of the provider's answer is wrong",
}


class SignInFailed(ValueError):
    """A sign-in at the provider that did not succeed, with the reason."""


@dataclass(frozen=True)
class Claims:
    """What the provider says of a person: their name by the claim that names people here, and their groups."""

    name: str
    groups: tuple[str, ...]


class Provider:
    """An identity provider.

    Parameters
    ----------
    settings
        Its address, and the gateway's registration there.
    redirect_uri
        Address of the gateway to which it sends people back.
    """

    def __init__(self, settings: LoginSettings, redirect_uri: str) -> None:
        self._settings, self._redirect_uri = settings, redirect_uri
        self._metadata: dict[str, Any] = {}
        self._fetched = -1e9
        self._keys: dict[str | None, Any] = {}
        self._keys_fetched = -1e9
        self._fetching = asyncio.Lock()

    async def begin(self) -> tuple[str, dict[str, str]]:
        """Return the provider's address to send a person to, and what their coming back is checked by.

        Raises
        ------
        SignInFailed
            When the provider is out of reach, or describes itself wrongly.
        """
        endpoint = (await self._describe())["authorization_endpoint"]
        state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._settings.oidc_scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": _without_padding(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        url = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
        return url, {"state": state, "nonce": nonce, "verifier": verifier}

    async def finish(self, code: str, pending: Mapping[str, str], issuer: str | None) -> Claims:
        """Exchange the code that a person came back with, and check who they are.

        Raises
        ------
        SignInFailed
            When the provider refuses the code, or anything of its answer is not as it must be.
        """
        if issuer is not None and issuer.rstrip("/") != self._settings.oidc_issuer:
            raise SignInFailed("the answer comes from another provider")
        metadata = await self._describe()
        token = await self._exchange(metadata["token_endpoint"], code, pending["verifier"])
        claims = await self._verified(str(token.get("id_token", "")), pending["nonce"], metadata)
        if metadata.get("userinfo_endpoint") and not claim_texts(claims, self._settings.oidc_groups_claim):
            # Some providers say the groups here alone.
            bearer = {"Authorization": f"Bearer {token.get('access_token', '')}"}
            info = await _ask("GET", str(metadata["userinfo_endpoint"]), headers=bearer)
            claims = {**info, **claims} if info.get("sub") == claims["sub"] else claims
        return self._read(claims)

    async def _exchange(self, endpoint: str, code: str, verifier: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": self._redirect_uri,
            "client_id": self._settings.oidc_client_id,
        }
        secret = self._settings.oidc_client_secret.get_secret_value()
        # Both are encoded as in a form first (RFC 6749, 2.3.1).
        credentials = (quote_plus(self._settings.oidc_client_id), quote_plus(secret)) if secret else None
        return await _ask("POST", endpoint, data=form, auth=credentials)

    async def _describe(self) -> dict[str, Any]:
        """The provider's description of itself, fetched once an hour."""
        async with self._fetching:
            if time.monotonic() - self._fetched < _DOCUMENT_SECONDS:
                return self._metadata
            issuer = self._settings.oidc_issuer
            metadata = await _ask("GET", f"{issuer}/.well-known/openid-configuration")
            if str(metadata.get("issuer", "")).rstrip("/") != issuer:
                raise SignInFailed(f"the provider calls itself {metadata.get('issuer')!r}, not {issuer}")
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                url = urlsplit(str(metadata.get(name, "")))
                if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname or "")):
                    raise SignInFailed(f"the provider's {name} is not https://: {metadata.get(name)!r}")
            self._metadata, self._fetched = metadata, time.monotonic()
            return metadata

    async def _verified(self, token: str, nonce: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise SignInFailed(f"the provider signs by {header.get('alg')!r}: wanted {', '.join(ALGORITHMS)}")
            claims: dict[str, Any] = jwt.decode(
                token,
                await self._key(header.get("kid"), metadata),
                algorithms=list(ALGORITHMS),
                audience=self._settings.oidc_client_id,
                issuer=metadata["issuer"],
                leeway=_LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, OverflowError) as error:
            raise SignInFailed(_CHECKS.get(type(error).__name__, "the provider's answer cannot be read")) from error
        if not secrets.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise SignInFailed("the provider's answer is to another sign-in")
        if claims.get("azp", self._settings.oidc_client_id) != self._settings.oidc_client_id:
            raise SignInFailed("the provider's answer was made for another client")
        return claims

    async def _key(self, kid: Any, metadata: Mapping[str, Any]) -> Any:
        import jwt

        if kid not in self._keys and time.monotonic() - self._keys_fetched >= _REFETCH_SECONDS:
            self._keys_fetched = time.monotonic()
            published = jwt.PyJWKSet.from_dict(await _ask("GET", metadata["jwks_uri"])).keys
            self._keys = {key.key_id: key for key in published if key.public_key_use in (None, "sig")}
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if kid not in self._keys:
            raise SignInFailed("the provider's answer is signed by a key that it does not publish")
        return self._keys[kid]

    def _read(self, claims: Mapping[str, Any]) -> Claims:
        name = claims.get(self._settings.oidc_name_claim)
        if not isinstance(name, str) or _NAME.fullmatch(name.strip()) is None or not name.isprintable():
            raise SignInFailed(f"the claim {self._settings.oidc_name_claim} names nobody: found {name!r}")
        if self._settings.oidc_name_claim == "email" and claims.get("email_verified") is False:
            raise SignInFailed("the provider has not verified the e-mail address")
        return Claims(name.strip(), claim_texts(claims, self._settings.oidc_groups_claim))


def _without_padding(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


async def _ask(method: str, url: str, **options: Any) -> dict[str, Any]:
    """The object that the provider answers at an address (raises SignInFailed)."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, follow_redirects=False) as client:
            response = await client.request(method, url, **options)
        content = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise SignInFailed(f"the provider cannot be asked at {url}: {error}") from error
    if not response.is_success or not isinstance(content, dict):
        said = content.get("error", "") if isinstance(content, dict) else ""
        raise SignInFailed(f"the provider refused, at {url}: {response.status_code} {str(said)[:100]}".rstrip())
    return content
