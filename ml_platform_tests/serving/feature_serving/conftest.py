"""Settings with each kind of online store."""

import pytest

from ml_platform.settings import Settings


@pytest.fixture(params=["sqlite", "redis"])
def either(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with each kind of online store."""
    if request.param == "sqlite":
        return settings
    uri = str(request.getfixturevalue("redis_uri"))
    monkeypatch.setenv("ML_PLATFORM_ONLINE_URI", uri)
    return Settings(home=settings.home, online_uri=uri)
