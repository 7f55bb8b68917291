"""Monitoring watches the version that the registry calls the champion."""

from ml_platform.monitoring.champion import get_champion
from ml_platform.registry.manifest import Target, champion_target
from ml_platform_tests.monitoring.conftest import MODEL, World


def test_of_equal_shares_the_champion_of_monitoring_is_that_of_the_registry(world: World) -> None:
    halves = [Target(version=version, digest=world.digest, share=0.5) for version in (1, 2)]
    endpoint = world.store.publish(MODEL, halves, reason="compare", by="test")
    champion, manifest = get_champion(world.store, MODEL)
    assert champion == champion_target(endpoint)
    assert (champion.version, manifest.model) == (2, MODEL)
