"""Settings of the server: of `ML_PLATFORM_SERVING_<NAME>`, else of `serving:` in `environments.yaml`."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from ml_platform.environments import EnvironmentSettings
from ml_platform.governance.keys import ALL_MODELS, ROLES
from ml_platform.serving.host_names import checked_names


class Grant(BaseModel):
    """Roles on models, given to the bearers of a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roles: tuple[str, ...] = Field(
        min_length=1, description="What the bearers may do: predict, explain, push, promote or admin."
    )
    models: tuple[str, ...] = Field((ALL_MODELS,), min_length=1, description="Models on which they may; `*` for all.")

    @field_validator("roles")
    @classmethod
    def _known(cls, roles: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(roles) - set(ROLES)):
            raise ValueError(f"wanted some of {', '.join(ROLES)}, found {', '.join(unknown)}")
        return roles


class ServingSettings(EnvironmentSettings):
    """Limits of one worker, and what it does when something else fails.

    Examples
    --------
    >>> ServingSettings().online_fallback
    'fail'
    """

    model_config = SettingsConfigDict(env_prefix="ML_PLATFORM_SERVING_", frozen=True, extra="ignore")

    app: str = Field(
        "serving.app:app", description="The app that is served, `<module>:<attribute>`; made by `create_app`."
    )
    online_fallback: Literal["fail", "nulls"] = Field(
        "fail",
        description="When the online store fails: answer 503, or score with nulls for what it holds and say so.",
    )
    log_fallback: Literal["refuse", "count"] = Field(
        "refuse",
        description="When the inference log cannot be written: answer 503, or answer, say so, and count what is lost.",
    )
    max_active: int = Field(1000, ge=1, description="Requests at once; more are answered 503 with Retry-After.")
    max_queue: int = Field(8, ge=1, description="Large requests waiting for the thread that scores them.")
    queue_seconds: float = Field(10.0, gt=0, description="Longest wait of a large request for its turn.")
    body_seconds: float = Field(10.0, gt=0, description="Longest time a body may take to arrive.")
    header_bytes: int = Field(65_536, ge=1024, description="Largest head of a request: its URL and header lines.")
    header_seconds: float = Field(10.0, gt=0, description="Longest time a head may take to arrive.")
    idle_seconds: float = Field(
        75.0, gt=0, description="How long a connection is kept without a request: longer than a proxy keeps it."
    )
    max_shadow_queue: int = Field(200, ge=1, description="Requests waiting to be scored by shadow versions.")
    max_push_queue: int = Field(200, ge=1, description="Pushes waiting to be written; of large ones `max_queue`.")
    push_ahead_seconds: float = Field(
        60.0,
        ge=0,
        le=315_360_000,
        description="How far ahead of the server's clock the event time of a pushed row may lie.",
    )
    rate: float | None = Field(
        None, gt=0, description="Requests per second of each key, token or address; a key's own comes first."
    )
    burst: int | None = Field(None, ge=1, description="Requests at once within that rate; the rate itself when absent.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names of the server beside its addresses, comma-separated; `*.example.com`, or `*` for any.",
    )

    mlflow_extras: Literal["ignore", "refuse"] = Field(
        "ignore",
        description="Columns that are no inputs, `params` and unknown members in MLflow's and Databricks' formats: "
        "ignore them, as MLflow does, or answer 400.",
    )

    oidc_issuer: str = Field("", description="Issuer of the bearer tokens that are accepted (`iss`); empty for none.")
    oidc_audience: str = Field("", description="Audience that a token must be for (`aud`).")
    oidc_jwks: str = Field("", description="URL or path of the issuer's public keys (JWKS).")
    oidc_claim: str = Field("roles", description="Claim that holds roles or groups; dots lead into objects.")
    oidc_grants: dict[str, Grant] = Field(
        {}, description='What each value of that claim may: `{"<value>": {"roles": [...], "models": [...]}}`.'
    )
    oidc_name_claim: str = Field("sub", description="Claim that names the caller in the logs.")
    oidc_refetch_seconds: float = Field(
        10.0, gt=0, description="Shortest time between two fetches of the issuer's keys."
    )

    @model_validator(mode="after")
    def _check_oidc(self) -> Self:
        wanted = {"oidc_issuer": self.oidc_issuer, "oidc_audience": self.oidc_audience, "oidc_jwks": self.oidc_jwks}
        missing = [name for name, value in {**wanted, "oidc_grants": self.oidc_grants}.items() if not value]
        if any(wanted.values()) and missing:
            raise ValueError(f"bearer tokens want {', '.join(missing)} as well: else none could be let in")
        url = urlsplit(self.oidc_jwks)
        if "://" in self.oidc_jwks and not (
            url.scheme == "https" or (url.scheme == "http" and url.hostname in ("127.0.0.1", "::1", "localhost"))
        ):
            raise ValueError(f"oidc_jwks: wanted an https:// URL or a path, found {self.oidc_jwks}")
        return self

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return checked_names(value) if isinstance(value, str) else value
