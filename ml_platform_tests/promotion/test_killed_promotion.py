"""Promotions that are killed at each kind of step, and two at once: real processes, SIGKILL, one version that serves.

With EVERY_STEP=1 in the environment they are killed at every step, and the first release and an approval too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_platform.promotion.approve import request_approval
from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.monitoring.canary.test_advance import NAME, Walks
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.toy_world import Shops

World = tuple[Shops, TrainedModel]
# Libraries that start threads when they are imported: a fork in which such a thread holds a lock would wait for ever.
NO_THREADS = {
    "_RJEM_MALLOC_CONF": "background_thread:false",  # Polars' and Delta's allocators
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
}
EVERY_STEP = bool(os.environ.get("EVERY_STEP"))


def write_case(walks: Walks | None, shops: Shops, trained: TrainedModel) -> Path:
    """Write what the processes need to know into the home, beside what they find there."""
    evaluation = walks.evaluation if walks else shops.evaluate(trained)
    spec = walks.spec if walks else shops.spec
    case = {
        "spec": spec.model_dump(mode="json", exclude_unset=True),
        "trained": trained.model_dump(mode="json"),
        "evaluation": evaluation.model_copy(update={"promote": True, "reasons": ("because",)}).model_dump(mode="json"),
        "versions": [one.model_dump(mode="json") for one in walks.versions.values()] if walks else [],
    }
    home = shops.settings.home
    (home / "case.json").write_text(json.dumps(case))
    serves = shops.store.endpoint(NAME)
    before = {str(target.version): target.share for target in serves.targets} if serves else {}
    (home / "before.json").write_text(json.dumps(before))
    return home


def run(*words: object) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "ML_PLATFORM_HOME"} | NO_THREADS
    done = subprocess.run(
        [sys.executable, "-m", "ml_platform_tests.promotion.releasing", *map(str, words)],
        check=False, capture_output=True, text=True, cwd=PROJECT_ROOT, env=environment, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def whole(walks: Walks) -> Walks:
    """Without a walk: releases take all traffic at once."""
    from ml_platform.registry.canary import set_canary_policy

    set_canary_policy(walks.store, NAME, None)
    promotion = walks.spec.promotion.model_copy(update={"canary": None})
    walks.spec = walks.spec.model_copy(update={"promotion": promotion})
    return walks


def waits(walks: Walks, *versions: int) -> None:
    walks.store.approvals.set_policy(NAME, ApprovalPolicy())
    for version in versions:
        request_approval(
            walks.settings, NAME, version, walks.versions[version].digest, by="dagster run 7", comment="passed"
        )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["gate", "walk", *(["first", "approval"] if EVERY_STEP else [])])
def test_a_kill_at_any_kind_of_step_leaves_one_version_and_the_next_attempt_heals(
    shops: Shops, trained_shops: World, tmp_path: Path, way: str
) -> None:
    walks = None if way == "first" else Walks(shops, trained_shops[1])
    if walks is not None and way == "gate":
        whole(walks)
    if walks is not None and way == "approval":
        waits(walks, 2)
    if walks is not None and way == "walk":
        walks.promote(2)
        walks.answer(300, more_errors=0.5)
    home = write_case(walks, shops, trained_shops[1])
    steps = run("killed" if EVERY_STEP else "kinds", way, home, tmp_path / "work").splitlines()
    assert len(steps) > 8, steps
    wanted = {
        f"/releases/endpoints/.{NAME}.json.",
        f"/releases/history/{NAME}/",
        "/audit/",
        "commit of a database",
        "Delta's",
    }
    assert all(any(words in step for step in steps) for words in wanted), steps


RACES = [
    ("promote 2", "promote 3", False),
    ("promote 2", "traffic of Dagster", False),
    ("promote 2", "gate 3", False),
    ("approve 2", "approval of Dagster", True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "is_approved"), RACES)
def test_of_two_at_once_one_wins_and_the_other_is_told(
    shops: Shops, trained_shops: World, tmp_path: Path, first: str, second: str, is_approved: bool
) -> None:
    walks = whole(Walks(shops, trained_shops[1]))
    if is_approved:
        waits(walks, 2, 3)
    home = write_case(walks, shops, trained_shops[1])
    outcome: dict[str, Any] = json.loads(run("raced", first, second, home, tmp_path / "work").splitlines()[-1])
    [loser] = [way for way, code in outcome["codes"].items() if code != 0]
    assert any(
        words in outcome["said"][loser]
        for words in ("the decision was based on revision 1, but revision 2 is current", "what serves has changed")
    ), outcome
    winner = "2" if loser == second else "3"
    assert (outcome["serves"], outcome["revision"]) == ({winner: 1.0}, 2), outcome
