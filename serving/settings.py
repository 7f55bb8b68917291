"""What whoever runs the server may choose, each read from `ML_PLATFORM_SERVING_<NAME>`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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
