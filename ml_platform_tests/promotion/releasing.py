"""Ways to release a version, each to be killed at every step and to be raced by another; runs as a process of its own.

    python -m ml_platform_tests.promotion.releasing killed <way> <home> <folder of work>
    python -m ml_platform_tests.promotion.releasing kinds <way> <home> <folder of work>
    python -m ml_platform_tests.promotion.releasing raced <way> <way> <home> <folder of work>

This process imports everything and then only forks: each attempt is a process that was killed by SIGKILL, or has ended.
The steps are not listed anywhere. A step is whatever changes the disk: a file opened to be written, renamed, removed or
linked, a folder made (Python's audit events), a commit of a database (SQLAlchemy's), a call into Delta's writer. So a
step that is new to a promotion is killed at, too. `kinds` kills at the first step of each kind only: of the same change
of the same path but for numbers, digests and temporary endings, of a commit to the same tables of a database.
"""

import faulthandler
import json
import os
import re
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import deltalake._internal
import mlflow  # noqa: F401 - imported once, before all forks
import sqlalchemy
from mlflow.tracking import MlflowClient  # noqa: F401

from ml_platform.cli import app
from ml_platform.governance.ledger_check import verify_ledger
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.canary.advance import advance
from ml_platform.orchestration.endpoint_jobs import endpoint_jobs
from ml_platform.orchestration.resources import build_resources
from ml_platform.promotion.answer import answer_request
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform.registry.followed import followed_revision
from ml_platform.registry.ledger import read_ledger
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Evaluation, RegisteredVersion, TrainedModel

NAME = "order_late"
PATIENCE = 200.0  # seconds; an attempt takes about two on a quiet machine
_WRITES = re.compile(r"write|create|commit|append|delete|merge|update|checkpoint")
_VARIES = re.compile(r"[0-9a-f]{8,}|\d+|\.[^/.]{6,}$")
_TABLE = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)", re.IGNORECASE)
_CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink"}


@dataclass
class Case:
    """What a home was prepared with; see `test_killed_promotion`."""

    settings: Settings
    spec: ModelSpec
    trained: TrainedModel
    evaluation: Evaluation
    versions: dict[int, RegisteredVersion]

    @classmethod
    def read(cls, home: Path) -> "Case":
        stored = json.loads((home / "case.json").read_text())
        return cls(
            Settings(home=home),
            ModelSpec.model_validate(stored["spec"]),
            TrainedModel.model_validate(stored["trained"]),
            Evaluation.model_validate(stored["evaluation"]),
            {one["version"]: RegisteredVersion.model_validate(one) for one in stored["versions"]},
        )

    def promote(self, number: int) -> None:
        version = self.versions[number]
        judged = self.evaluation.model_copy(update={"revision": 1, "challenger_digest": version.digest})
        promote(self.settings, self.spec, version, judged, tracker=Tracker(self.settings), by="run 1")


def _first(case: Case) -> None:
    tracker = Tracker(case.settings)
    version = register(case.spec, case.trained, case.evaluation, tracker=tracker)
    promote(case.settings, case.spec, version, case.evaluation, tracker=tracker, by="run 1")


def _approval(case: Case) -> None:
    answer_request(case.settings, NAME, 2, by="bob", approve=True, comment="card read")


def _walk(case: Case) -> None:
    advance(case.settings, NAME)


def _dagster(job: int, **config: Any) -> Callable[[Case], None]:
    def launch(case: Case) -> None:
        definition = endpoint_jobs(case.spec)[job]
        [op] = definition.nodes
        run_config = {"ops": {op.name: {"config": config}}}
        definition.execute_in_process(run_config=run_config, resources=build_resources(case.settings))

    return launch


def _terminal(*words: str) -> Callable[[Case], None]:
    def command(case: Case) -> None:
        os.environ["ML_PLATFORM_HOME"] = str(case.settings.home)
        app(words)

    return command


WAYS: dict[str, Callable[[Case], None]] = {
    "first": _first,
    "gate": lambda case: case.promote(2),
    "approval": _approval,
    "walk": _walk,
    "promote 2": _terminal("promote", NAME, "2", "--reason", "mine"),
    "promote 3": _terminal("promote", NAME, "3", "--reason", "mine"),
    "approve 2": _terminal("approvals", "approve", NAME, "2", "--comment", "mine"),
    "traffic of Dagster": _dagster(1, shares={"3": 1.0}, revision=1, reason="mine"),
    "approval of Dagster": _dagster(2, version=3, approve=True, by="eve", comment="mine"),
    "gate 3": lambda case: case.promote(3),
}


def kill_at(step: int | None, home: Path, told: Path) -> None:
    """Let this process be killed before its change of the disk number `step`, from 0; `told` gets what it was.

    With None it is not killed, and all its changes are told.
    """
    passed = 0
    tables: set[str] = set()

    def tell(what: str) -> None:
        descriptor = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{passed - 1}: {what}\n".encode())
        os.close(descriptor)

    def at(what: str) -> None:
        nonlocal passed
        passed += 1
        if step is None:
            tell(what)
        elif passed > step:
            if passed == step + 1:
                tell(what)
            os.kill(os.getpid(), signal.SIGKILL)

    def commits(_: object) -> None:
        changed = ", ".join(sorted(tables))
        tables.clear()
        at(f"commit of a database: {changed or 'nothing'}")

    def executes(*arguments: Any) -> None:
        if match := _TABLE.match(arguments[2]):
            tables.add(f"{match[1].upper()} {match[2]}")

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        if (step is not None and passed > step) or (event != "open" and event not in _CHANGES) or not arguments:
            return
        path = arguments[0]
        inside = isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(f"{home}/")
        if inside and (event != "open" or _is_written(arguments)) and not _changes_nothing(event, os.fsdecode(path)):
            at(f"{event} {os.fsdecode(path).removeprefix(str(home))}")

    def profiled(_: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and _WRITES.search(called.__name__):
            owner = getattr(called, "__self__", None)
            if type(owner).__module__.startswith("deltalake") or owner is deltalake._internal:
                at(f"Delta's {called.__name__}")

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", executes)
    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", commits)
    sys.addaudithook(audited)
    sys.setprofile(profiled)


def _changes_nothing(event: str, path: str) -> bool:
    """Whether it is a folder that is there already, or a lock's file, which is empty."""
    return os.path.exists(path) and (event == "os.mkdir" or path.endswith(".lock"))


def _is_written(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def state(case: Case) -> dict[str, Any]:
    """All that a promotion leaves behind, without instants; raises where something does not fit together."""
    store, lake, client = (
        ReleaseStore(case.settings.releases_dir),
        Lake(case.settings.lake_uri),
        Tracker(case.settings).client,
    )
    document = store.document(NAME)
    assert document is not None
    entries, problems = verify_ledger(lake, case.settings)
    assert problems == [], problems
    ledger = read_ledger(lake).sort("number")
    assert ledger.height == entries
    assert followed_revision(store, NAME) == document.revision
    requests = store.approvals.all(NAME)
    alerts = case.settings.alerts_dir / "alerts.jsonl"
    told = [json.loads(line) for line in alerts.read_text().splitlines()] if alerts.exists() else []
    return {
        "serves": {target.version: target.share for target in document.targets},
        "revision": document.revision,
        "walk": document.canary.state if document.canary else None,
        "aliases": {alias: int(number) for alias, number in client.get_registered_model(NAME).aliases.items()},
        "stages": {one.version: one.tags.get("stage") for one in client.search_model_versions(f"name = '{NAME}'")},
        # In the order of what each is about: what is made up for may come after what came after it.
        "ledger": sorted(ledger.select("action", "by", "to_version", "revision").rows(), key=str),
        "approvals": {str(one.version): [event.action for event in one.events] for one in requests},
        "alerts": sorted({one["title"] for one in told if one["kind"] == "canary"}),
    }


def serves_whole(case: Case, before: dict[str, float], after: dict[str, float]) -> None:
    """Check what a server finds in the store right after a kill: the old state or the new one, with its bundles."""
    store = ReleaseStore(case.settings.releases_dir)
    document = store.document(NAME)
    found = {str(target.version): target.share for target in document.targets} if document else {}
    assert found in (before, after), found
    for target in document.targets if document else ():
        store.load_manifest(target.digest)


def in_a_process(work: Callable[[], object], output: Path) -> int:
    """Do it in a forked process, its output in a file; gives what `waitpid` does."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        faulthandler.enable()  # one that hangs is ended by SIGABRT, and says where it was
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - told in the output, and by the exit code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process; gives its exit code, negative for a signal. One that hangs is killed, and fails the test."""
    descriptor = os.pidfd_open(child)
    if not select.select([descriptor], [], [], PATIENCE)[0]:
        os.kill(child, signal.SIGABRT)
        raise AssertionError(f"process {child} has not ended within {PATIENCE:g} s")
    os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(way: str, home: Path, work: Path, *, kinds: bool) -> None:
    """Kill a way of releasing at its steps, and repeat it: what is left is as if nothing had been killed."""
    release, place, output = WAYS[way], work / "home", work / "last.out"
    before = json.loads((home / "before.json").read_text())

    def attempt(task: Callable[[], object], *, is_fresh: bool) -> int:
        if is_fresh:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(home, place, symlinks=True)
        output.unlink(missing_ok=True)
        return ended(in_a_process(task, output))

    def whole() -> None:
        case = Case.read(place)
        kill_at(None, place, work / "all.txt")
        release(case)
        sys.setprofile(None)
        steps = (work / "all.txt").read_text()  # before `state`, which opens databases too
        (work / "wanted.json").write_text(json.dumps([steps.splitlines(), state(case)]))

    def cut(step: int) -> None:
        kill_at(step, place, work / "steps.txt")
        release(Case.read(place))

    def heal() -> None:
        case = Case.read(place)
        serves_whole(case, before, wanted["serves"])
        release(case)
        left = json.loads(json.dumps(state(case)))
        assert left == wanted, f"\nfound  {left}\nwanted {wanted}"

    work.mkdir(parents=True, exist_ok=True)
    assert attempt(whole, is_fresh=True) == 0, output.read_text()
    steps, wanted = json.loads((work / "wanted.json").read_text())
    first: dict[str, int] = {}
    for number, said in enumerate(steps):
        first.setdefault(_VARIES.sub("*", said.partition(": ")[2]) if kinds else str(number), number)
    for step in first.values():
        code = attempt(lambda at=step: cut(at), is_fresh=True)  # type: ignore[misc]
        assert code == -signal.SIGKILL, f"{steps[step]}: ended by {code}\n{output.read_text()}"
        healed = attempt(heal, is_fresh=False)
        assert healed == 0, f"after a kill before {steps[step]}:\n{output.read_text()}"
    lines = (work / "steps.txt").read_text().splitlines()
    print(f"{way}: killed at {len(lines)} of {len(steps)} steps", *lines, sep="\n")


def raced(first: str, second: str, home: Path, work: Path) -> None:
    """Let two release at the same revision at once: both have read it before either may publish."""
    work.mkdir(parents=True, exist_ok=True)
    import fcntl

    locks = Settings(home=home).releases_dir / "locks"
    lock = os.open(locks / f"{NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    places = {way: work / f"{number}.out" for number, way in enumerate((first, second))}

    def attempt(way: str) -> Callable[[], None]:
        def work_on() -> None:
            os.close(lock)
            WAYS[way](Case.read(home))

        return work_on

    children = {way: in_a_process(attempt(way), place) for way, place in places.items()}
    deadline = time.monotonic() + 300
    while _waiting_for_locks() & set(children.values()) != set(children.values()):
        assert time.monotonic() < deadline, {way: place.read_text() for way, place in places.items()}
        time.sleep(0.02)
    os.close(lock)
    codes = {way: ended(child) for way, child in children.items()}
    document = ReleaseStore(Settings(home=home).releases_dir).document(NAME)
    assert document is not None
    outcome = {
        "codes": codes,
        "said": {way: place.read_text() for way, place in places.items()},
        "serves": {str(target.version): target.share for target in document.targets},
        "revision": document.revision,
    }
    print(json.dumps(outcome))


def _waiting_for_locks() -> set[int]:
    """Processes that wait for a lock of a file."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(words[5]) for words in lines if words[1] == "->" and words[2] == "FLOCK"}


if __name__ == "__main__":
    what, *names, place, folder = sys.argv[1:]
    if what in {"killed", "kinds"}:
        killed(names[0], Path(place), Path(folder), kinds=what == "kinds")
    else:
        raced(names[0], names[1], Path(place), Path(folder))
