"""Where a study is kept, so that a search that was killed goes on: one journal of Optuna's for each data and spec."""

import fcntl
import hashlib
import json
import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.atomic_files import try_lock
from ml_platform.code_version import engine_code_version
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    import optuna

KEPT = 3  # studies of a model, the newest of them
_SUFFIX = ".journal"


def study_key(spec: ModelSpec, data_digest: str) -> str:
    """Name the study of a spec on some data: another one for all that could change a trial, and for nothing else.

    Parameters
    ----------
    spec
        The model; where its trials and the training run does not matter.
    data_digest
        Of what the trials read. The version of the table is no part of it: who goes on writes the same rows anew.
    """
    packages = sorted(path.name for path in Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info"))
    parts = {
        "data": data_digest,
        "spec": spec.model_dump(mode="json", exclude={"tuning": {"executor"}, "training": True}),
        "engine": engine_code_version(),
        "packages": packages,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def kept_study(folder: Path, key: str, *, higher_is_better: bool) -> Iterator["optuna.Study"]:
    """Open the study `key` in a folder, as it was left or new, and hold it against other processes.

    Who wants a study that another process holds waits for it. Older studies of the folder are removed, but for the
    newest `KEPT`.

    Parameters
    ----------
    folder
        Of one model's studies; created when absent.
    key
        Of `study_key`.
    higher_is_better
        Direction of the metric.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}{_SUFFIX}"
    with _held(path):
        _sweep(folder, path)
        Path(f"{path}.lock").unlink(missing_ok=True)  # Optuna's own, of a writer that was killed
        _end_torn_line(path)
        yield optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=key,
            direction="maximize" if higher_is_better else "minimize",
            load_if_exists=True,
        )


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is there under its name; the system releases it when its holder dies."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            break
        os.close(descriptor)  # removed by another process before the lock was ours
    try:
        yield
    finally:
        os.close(descriptor)


def _end_torn_line(path: Path) -> None:
    """Remove what a crash of the machine left of a last line, behind which Optuna would read nothing any more."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _sweep(folder: Path, own: Path) -> None:
    """Remove all studies but the newest, those that a process holds left out."""
    os.utime(own)
    newest_first = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in newest_first[KEPT:]:
        with suppress(FileNotFoundError), open(path, "rb") as file:  # another process may sweep too
            if try_lock(file.fileno()):
                path.unlink()
