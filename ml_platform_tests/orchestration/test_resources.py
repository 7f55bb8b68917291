"""The platform's resource."""

from datetime import timedelta

from ml_platform.orchestration.resources import build_resources
from ml_platform_tests.toy_world import START, Shops


def test_the_steps_of_one_process_read_a_training_set_once(shops: Shops) -> None:
    platform = build_resources(shops.settings)["platform"]
    ref, newer = (shops.training_set(START + timedelta(days=days)) for days in (60, 70))
    rows = platform.training_rows(shops.spec, ref)
    assert platform.training_rows(shops.spec, ref) is rows
    shorter = shops.respecified(split={"holdout": "7 days", "validation": "7 days", "gap": "1 day"})
    assert platform.training_rows(shorter.spec, ref).parts.holdout.height < rows.parts.holdout.height
    assert platform.training_rows(shops.spec, newer).ref == newer
