"""What whoever runs the server may choose, each read from `ML_PLATFORM_SERVING_<NAME>`."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from serving.hosts import checked_names


class ServingSettings(BaseSettings):
    """Limits of one worker, and what it does when something else fails.

    Examples
    --------
    >>> ServingSettings().online_fallback
    'fail'
    """

    model_config = SettingsConfigDict(env_prefix="ML_PLATFORM_SERVING_", frozen=True, extra="ignore")

    online_fallback: Literal["fail", "nulls"] = Field(
        "fail",
        description="When the online store fails: answer 503, or score with nulls for what it holds and say so.",
    )
    max_active: int = Field(1000, ge=1, description="Requests at once; more are answered 503 with Retry-After.")
    max_queue: int = Field(8, ge=1, description="Large requests waiting for the thread that scores them.")
    queue_seconds: float = Field(10.0, gt=0, description="Longest wait of a large request for its turn.")
    body_seconds: float = Field(10.0, gt=0, description="Longest time a body may take to arrive.")
    max_shadow_queue: int = Field(200, ge=1, description="Requests waiting to be scored by shadow versions.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names that it answers to beside its addresses, comma-separated; `*.example.com`, or `*` for any.",
    )

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return checked_names(value) if isinstance(value, str) else value
