"""Settings of the login gateway: of `ML_PLATFORM_LOGIN_<NAME>`, else of `login:` in `environments.yaml`."""

import ipaddress
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from ml_platform.environments import EnvironmentSettings
from ml_platform.login.roles import parse_roles

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class LoginSettings(EnvironmentSettings):
    """Where the gateway is, what is behind it, how long people stay signed in, and their identity provider.

    Examples
    --------
    >>> LoginSettings(url="https://ml.example.com").is_secure
    True
    """

    model_config = SettingsConfigDict(env_prefix="ML_PLATFORM_LOGIN_", frozen=True, extra="ignore")

    url: str = Field(
        "", description="Address that people open, such as `https://ml.example.com`; the gateway's own by default."
    )
    dagster_url: str = Field("", description="Dagster's webserver; the one of this machine's `make dev` by default.")
    mlflow_url: str = Field("", description="MLflow's server; the one of this machine's `make dev` by default.")
    idle_minutes: float = Field(480.0, gt=0, description="A session that is not used for so long has ended.")
    session_hours: float = Field(24.0, gt=0, description="A session ends after so long in any case.")
    trusted_proxies: str = Field(
        "", description="Addresses of proxies in front, comma-separated, whose `X-Forwarded-For` names the client."
    )
    oidc_issuer: str = Field("", description="Address of the identity provider (OpenID Connect); empty for none.")
    oidc_client_id: str = Field("", description="The gateway's id at the provider.")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="Its secret; empty for a public client.")
    oidc_scope: str = Field("openid", description="Scopes to ask the provider for, separated by blanks.")
    oidc_groups_claim: str = Field("groups", description="Claim that holds a person's groups; dots lead into objects.")
    oidc_name_claim: str = Field(
        "sub",
        description="Claim that names a person, in grants as `user:<name>`; one that people cannot change themselves.",
    )
    oidc_roles: dict[str, str] = Field(
        {},
        description='Roles of each group: `{"ml-team": "editor", "guests": "mlflow=viewer, console=viewer"}`; `*` for '
        "everybody whom the provider knows.",
    )

    @field_validator("url", "dagster_url", "mlflow_url", "oidc_issuer")
    @classmethod
    def _address(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if (
            parts.scheme not in {"http", "https"}
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise ValueError(f"wanted an address such as https://ml.example.com, found {value}")
        return value.rstrip("/")

    @field_validator("oidc_roles")
    @classmethod
    def _roles(cls, value: dict[str, Any]) -> dict[str, Any]:
        for roles in value.values():
            parse_roles(roles.split(","))
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.url and urlsplit(self.url).path not in ("", "/"):
            raise ValueError(f"url: wanted an address without a path, found {self.url}")
        if self.url and not self.is_secure and not is_loopback(urlsplit(self.url).hostname or ""):
            raise ValueError(
                f"url: wanted https://, or http:// of this machine: passwords cross the net, found {self.url}"
            )
        if not self.oidc_issuer:
            return self
        missing = [
            name for name in ("oidc_client_id", "oidc_roles") if not getattr(self, name)
        ]  # without roles nobody could do anything
        if missing:
            raise ValueError(f"sign-in at {self.oidc_issuer} wants {', '.join(missing)} as well")
        issuer = urlsplit(self.oidc_issuer)
        if issuer.scheme != "https" and not is_loopback(issuer.hostname or ""):
            raise ValueError(f"oidc_issuer: wanted https://, found {self.oidc_issuer}")
        return self

    @property
    def is_secure(self) -> bool:
        """Whether people reach the gateway by TLS."""
        return self.url.startswith("https://")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("ml.example.com")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
