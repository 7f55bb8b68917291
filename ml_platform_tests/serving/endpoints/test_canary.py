"""A canary walk on a running server: what its requests leave behind, and that the guards judge by it."""

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from ml_platform.inference.outcomes import read_outcomes
from ml_platform.monitoring.canary.advance import decide, judge
from ml_platform.registry.canary import next_step, roll_back_walk, start_walk, walk_of
from ml_platform.registry.manifest import CanaryPolicy, Endpoint
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import INPUTS, MODEL, ROW, bundle, fill_online_store, publish

POLICY = CanaryPolicy(steps=(50, 80, 100), minutes=0, min_requests=30)
STRICT = tuple(msgspec.structs.replace(one, allowed=("AA", "B6")) if one.name == "carrier" else one for one in INPUTS)


def walk(settings: Settings, version: int, **changes: object) -> Endpoint:
    store = ReleaseStore(settings.releases_dir)
    digest = store.put_bundle(bundle(version, **changes))  # type: ignore[arg-type]
    return start_walk(store, MODEL, version, digest, policy=POLICY, reason="try", by="pytest")


def follow(server: Server, revision: int) -> None:
    server.wait_until(lambda client: client.get(f"/endpoints/{MODEL}").json()["in_force"] == revision)


def ask(server: Server, number: int, first: int = 0, path: str = "") -> dict[int | None, int]:
    """Ask by many ids; gives the number of answers by version, None for a request that was refused."""
    seen: dict[int | None, int] = {}
    for one in range(first, first + number):
        answer = server.client.post(f"/predict/{MODEL}{path}", json={**ROW, "flight_id": f"flight-{one}"})
        version = answer.json()["version"] if answer.status_code == 200 else None
        seen[version] = seen.get(version, 0) + 1
    return seen


@pytest.fixture
def served(settings: Settings, serve: Callable[..., Server]) -> Server:
    fill_online_store(settings)
    publish(settings, 1)
    return serve(settings)


def test_a_step_is_judged_by_what_was_answered_and_shown(settings: Settings, served: Server) -> None:
    store = ReleaseStore(settings.releases_dir)
    assert served.client.get(f"/endpoints/{MODEL}").json()["canary"] is None
    assert ask(served, 5) == {1: 5}
    assert not settings.outcomes_dir.exists()  # without a walk nothing is noted
    document = walk(settings, 2)
    follow(served, 2)
    seen = ask(served, 120)
    ask(served, 5, path="/versions/2")  # asked for by its number: no part of the walk
    served.client.post(f"/predict/{MODEL}", content=b"no JSON", headers={"Content-Type": "application/json"})
    outcomes = read_outcomes(settings.outcomes_dir, MODEL, 2, 2)
    ours = int(outcomes.is_canary.sum())
    assert (len(outcomes.is_canary), ours) == (sum(seen.values()), seen[2])
    assert not outcomes.failed.any()
    assert outcomes.scores.shape == (120, 1)
    assert (outcomes.seconds > 0).all()
    report = judge(settings, document)
    assert report.decision == "advance", report.said
    told = served.client.get(f"/endpoints/{MODEL}").json()["canary"]
    assert (told["version"], told["state"], told["percent"], told["step"]) == (2, "walking", 50, 1)
    assert told["report"]["canary_requests"] == ours
    assert [guard["guard"] for guard in told["report"]["guards"]] == ["errors", "latency", "flags", "scores"]
    page = served.client.get(f"/models/{MODEL}/console").text
    assert "Canary of version 2" in page
    assert "no guard is breached after" in page
    next_step(store, document, reason="on", by="pytest")
    follow(served, 3)
    before = {f"flight-{one}" for one in range(120) if outcomes.is_canary[one]}
    stayed = [
        served.client.post(f"/predict/{MODEL}", json={**ROW, "flight_id": name}).json()["version"] for name in before
    ]
    assert set(stayed) == {2}  # whoever the canary answers, it answers at the next step
    assert len(read_outcomes(settings.outcomes_dir, MODEL, 3, 2).is_canary) == len(before)


def test_a_canary_that_refuses_what_the_champion_answers_is_sent_back(settings: Settings, served: Server) -> None:
    store, document = ReleaseStore(settings.releases_dir), walk(settings, 2, inputs=STRICT)
    follow(served, 2)
    first = ask(served, 100)
    assert first[None] > 20
    served.stop(signal.SIGKILL)
    outcomes = read_outcomes(settings.outcomes_dir, MODEL, 2, 2)
    assert len(outcomes.is_canary) == 100  # also what a killed server has answered
    assert (outcomes.failed == outcomes.is_canary).all()
    report = decide(outcomes, document, walk_of(document), datetime.now(UTC))
    assert report.decision == "roll back"
    assert report.said.startswith("requests not answered: 100.00% against 0.00%")
    back = roll_back_walk(store, document, reason=report.said, by="canary")
    assert [target.version for target in back.targets] == [1]


def test_a_disk_that_takes_no_outcomes_costs_no_answer(settings: Settings, served: Server) -> None:
    settings.outcomes_dir.write_text("a file where a folder is wanted")
    walk(settings, 2)
    follow(served, 2)
    assert None not in ask(served, 20)
    assert "its canary walk cannot be judged" in served.stop()


def test_lines_that_a_kill_tore_are_passed_over(settings: Settings) -> None:
    folder = settings.outcomes_dir / MODEL
    folder.mkdir(parents=True)
    whole = json.dumps([2, 2, 1.0, 0.001, False, False, 7, [0.5]])
    (folder / "a.jsonl").write_text(f"{whole}\n[2,2,1.0,0.0\n{whole}\n{whole[:9]}")
    (folder / "b.jsonl").write_text(whole.replace("[2", "[20", 1) + "\n")
    for text in (folder / "a.jsonl", folder / "b.jsonl"):
        text.write_text(text.read_text().replace(" ", ""))
    assert len(read_outcomes(settings.outcomes_dir, MODEL, 2, 2).is_canary) == 2
    assert len(read_outcomes(settings.outcomes_dir, MODEL, 3, 2).is_canary) == 0
