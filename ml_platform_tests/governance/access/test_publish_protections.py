"""What definitions protect is published for serving while a policy is in force, and not by whoever has no project."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ml_platform.governance.access import publish_protections as module
from ml_platform.governance.access.changes import with_grants
from ml_platform.governance.access.definitions import Definitions
from ml_platform.governance.access.policy import Grant
from ml_platform.governance.access.publish_protections import publish_if_governed, publish_protections
from ml_platform.governance.access.published import FILE, Protections
from ml_platform.governance.access.store import PolicyStore
from ml_platform.settings import Settings


def test_an_open_platform_publishes_nothing_and_a_governed_one_all_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    path = settings.access_dir / FILE
    publish_if_governed(settings)
    assert not path.exists()
    grant = Grant(privilege="use_feature", object="platform", principal="user:bob", at=datetime.now(UTC))
    PolicyStore(settings.access_dir).change(lambda document: with_grants(document, [grant]), "", "", by="x")
    publish_if_governed(settings)
    published = msgspec.json.decode(path.read_bytes(), type=Protections)
    assert {"features/carrier_reliability", "features/origin_weather"} <= published.tables.keys()
    assert {edge.target.object for edge in published.edges} >= {"features.carrier_reliability"}
    before = path.stat()
    publish_protections(settings)  # the same again
    assert path.stat().st_ino == before.st_ino
    monkeypatch.setattr(module, "load_definitions", Definitions)  # as outside a project
    publish_protections(settings)
    assert path.stat().st_ino == before.st_ino
