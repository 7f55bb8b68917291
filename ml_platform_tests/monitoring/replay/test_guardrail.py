"""The gate's guardrail on logged requests: held, broken, not computed, and what then becomes of a version."""

import os
import shutil
from pathlib import Path
from typing import Any

from ml_platform.monitoring.replay.guardrail import replay_guardrail
from ml_platform.promotion.declared import DeclaredModel
from ml_platform.spec.guardrails import Guardrails
from ml_platform.training.documents import GuardrailResult
from ml_platform.training.evaluation.evaluate import evaluate
from ml_platform.training.evaluation.gate import decide
from ml_platform.training.evaluation.rescoring import VersionRows
from ml_platform_tests.monitoring.replay.conftest import Served


def declared(served: Served, **keys: Any) -> DeclaredModel:
    shops = served.shops
    guardrails = Guardrails.model_validate(keys)
    promotion = shops.spec.promotion.model_copy(update={"guardrails": guardrails})
    return DeclaredModel(shops.spec.model_copy(update={"promotion": promotion}), shops.folder, shops.views)


def judged(served: Served, version: int, **keys: Any) -> tuple[GuardrailResult, ...]:
    shops = served.shops
    return replay_guardrail(
        shops.lake, shops.store, declared(served, **keys), served.digests[version], tracker=shops.tracker
    )


def test_a_challenger_that_loses_on_requests_that_were_sent_is_refused(own: Served) -> None:
    assert judged(own, 2) == ()  # which is not declared
    [found] = judged(own, 2, replay={"days": 7})
    assert (found.name, found.verdict, found.passed) == ("replay", "broken", False)
    assert found.value is not None
    assert found.lower is not None
    assert found.upper is not None
    assert 0 < found.lower < found.value < found.upper
    assert found.reason.startswith("worse: roc_auc 0.")
    assert "of decisions change" in found.reason
    [allowed] = judged(own, 2, replay={"max_loss": 0.5})
    assert (allowed.verdict, allowed.bound) == ("held", 0.5)
    reports = list((own.shops.store.folder / "replays" / "order_late").glob("*.json"))
    assert len(reports) == 2
    assert any(path.name in found.reason for path in reports)


def test_without_enough_data_it_fails_unless_it_is_optional(own: Served) -> None:
    shutil.rmtree(own.shops.lake.location("inference_log/order_late"))
    [found] = judged(own, 2, replay={})
    assert (found.verdict, found.passed) == ("not computed", False)
    assert "insufficient data, wanted are logged requests: `inference_log/order_late` has none" in found.reason
    [optional] = judged(own, 2, replay={}, optional=["replay"])
    assert (optional.verdict, optional.passed) == ("not computed", True)
    own.shops.store.publish("order_late", [], reason="out", by="ann", action="withdrawal")
    [first] = judged(own, 2, replay={})
    assert (first.verdict, first.passed) == ("not applicable", True)


def test_over_a_damaged_log_it_is_not_computed_and_the_table_is_named(own: Served) -> None:
    for file in Path(own.shops.lake.location("inference_log/order_late")).rglob("*.parquet"):
        os.truncate(file, file.stat().st_size // 2)
    [damaged] = judged(own, 2, replay={})
    assert (damaged.verdict, damaged.passed) == ("not computed", False)
    assert "inference_log/order_late or the tables of its spine cannot be read" in damaged.reason
    assert "restore them from a backup" in damaged.reason


def test_the_gate_decides_by_it(own: Served) -> None:
    shops = own.shops
    one = declared(own, replay={})
    asked: list[str] = []

    def further() -> tuple[GuardrailResult, ...]:
        asked.append("once")
        return replay_guardrail(shops.lake, shops.store, one, own.digests[2], tracker=shops.tracker)

    trained = shops.respecified(families=["logistic_regression"], tuning={"trials": 1}).train()
    source = VersionRows(shops.lake, one.spec, shops.folder, shops.views)
    rows = shops.rows(trained.training_set)
    evaluation = evaluate(rows, one.spec, trained, shops.store, source, further=further)
    assert asked == ["once"]
    [found] = [result for result in evaluation.guardrails if result.name == "replay"]
    assert found.verdict == "broken"
    promote, reasons = decide(one.spec, evaluation)
    assert not promote
    assert any("worse: roc_auc" in reason for reason in reasons)
