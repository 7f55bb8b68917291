"""Makes `.venv` and installs the locked dependencies; the Makefile runs it before anything else.

Only the standard library, and only syntax that old Pythons can read: a Python that is too old must be told so in one
line. Run again it returns at once, unless the lock file, `pyproject.toml`, the Python or the project's place changed.
"""
# ruff: noqa: UP031  (f-strings and later syntax would be a SyntaxError before the version check can speak)

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

OLDEST, NEWEST = (3, 11), (3, 13)
NEEDED_BYTES = 3 * 1024**3  # .venv is 1.9 GiB, the rest is the installer's cache and what the demo writes
BEAT_SECONDS = 15

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
LOCK = os.path.join(ROOT, "requirements.lock")
STAMP = os.path.join(VENV, "bootstrap.json")
UNFINISHED = os.path.join(VENV, "bootstrap.unfinished")
LOG = os.path.join(VENV, "bootstrap.log")


class SetupError(Exception):
    """What went wrong and what to do, as one line."""


def check_python() -> None:
    """Raise `SetupError` unless this Python is one that the locked dependencies support."""
    found = sys.version_info[:2]
    if OLDEST <= found <= NEWEST:
        return
    wanted = "%d.%d\u2013%d.%d" % (OLDEST + NEWEST)
    other = working_python()
    remedy = "set PYTHON=\u2026" + (" (`make PYTHON=%s \u2026`)" % other if other else "")
    word = "old" if found < OLDEST else "new"
    raise SetupError("Python %d.%d is too %s: %s wanted, %s" % (found[0], found[1], word, wanted, remedy))


def working_python() -> "str | None":
    """Return the name of a supported Python on the PATH that really starts, or None."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        name = "python3.%d" % minor
        path = shutil.which(name)
        if path and subprocess.call([path, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return name
    return None


def check_venv_module() -> None:
    """Raise `SetupError` where a virtual environment cannot be made (Debian packs `ensurepip` apart)."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        version = "%d.%d" % sys.version_info[:2]
        raise SetupError(
            "Python %s has no venv/ensurepip: `apt install python3-venv` (or python%s-venv), then run make again"
            % (version, version)
        ) from None


def check_disk(needed: int = NEEDED_BYTES) -> None:
    """Raise `SetupError` when the disk cannot hold the environment; what an unfinished one holds already counts."""
    free = shutil.disk_usage(ROOT).free
    if free >= needed:
        return
    if free + folder_bytes(VENV) < needed:
        raise SetupError(
            "%.1f GiB free on the disk of %s, %.1f GiB wanted: free some space, or move the project"
            % (free / 1024.0**3, ROOT, needed / 1024.0**3)
        )


def folder_bytes(folder: str) -> int:
    """Return the bytes that a folder's files take (0 when it is absent)."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)
    return total


def fingerprint() -> str:
    """Return what the environment depends on: lock, project file, Python, place."""
    digest = hashlib.sha256()
    for path in (LOCK, os.path.join(ROOT, "pyproject.toml")):
        with open(path, "rb") as file:
            digest.update(file.read())
    for part in (sys.version, sys.base_prefix, ROOT):
        digest.update(part.encode())
    return digest.hexdigest()


def last_stamp() -> dict:
    """Return what the last finished run noted; empty where none finished."""
    try:
        with open(STAMP) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def is_current(wanted: str) -> bool:
    """Return whether an earlier run finished with the same fingerprint, and its Python is still there."""
    return last_stamp().get("fingerprint") == wanted and os.path.exists(VENV_PYTHON)


def can_reuse() -> bool:
    """Return whether `.venv` is whole, of this Python and made in this place, so that an update in place is enough."""
    stamp = last_stamp()
    same = stamp.get("python") == sys.version and stamp.get("root") == ROOT
    return same and os.path.exists(VENV_PYTHON) and not os.path.exists(UNFINISHED)


def step(title: str, command: list, remedy: str) -> None:
    """Run a command into the log, with a sign of life while it lasts; raise `SetupError` with its last lines."""
    print("setup: %s \u2026" % title, flush=True)
    start = time.monotonic()
    beat = start + BEAT_SECONDS
    with open(LOG, "ab") as log:
        offset = log.tell()
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() > beat:
                    print("setup:   %.0f s" % (time.monotonic() - start), flush=True)
                    beat += BEAT_SECONDS
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        with open(LOG, "rb") as log:
            log.seek(offset)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()[-8:]
        if any("No space left" in line for line in lines):
            remedy = "the disk is full: free some space, then run make again"
        print("\n".join("    " + line for line in lines), file=sys.stderr)
        raise SetupError("%s failed (exit code %d; all of it in %s): %s" % (title, process.returncode, LOG, remedy))
    print("setup:   done in %.1f s" % (time.monotonic() - start), flush=True)


def install(wanted: str) -> None:
    """Make the environment, or bring an existing one up to the lock file, and stamp it when all went well."""
    again = "check the network (or the package index that pip.conf / UV_DEFAULT_INDEX name), then run make again"
    reuse = can_reuse()
    if not reuse and os.path.exists(VENV):
        shutil.rmtree(VENV)
    os.makedirs(VENV, exist_ok=True)
    with open(UNFINISHED, "w") as file:
        file.write("removed when the setup is complete\n")
    if not reuse:
        title = "making .venv with Python %d.%d.%d" % sys.version_info[:3]
        step(title, [sys.executable, "-m", "venv", VENV], "is the disk writable and python3-venv installed?")
    pip = [VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    step("installing uv", [*pip, "uv>=0.9"], again)
    uv = [os.path.join(VENV, "bin", "uv"), "pip", "install", "--python", VENV_PYTHON]
    step("installing the locked packages (1.9 GiB)", [*uv, "-r", LOCK], again)
    step("installing the project itself", [*uv, "--no-deps", "-e", ROOT], again)
    os.remove(UNFINISHED)
    with open(STAMP, "w") as file:
        json.dump({"fingerprint": wanted, "python": sys.version, "root": ROOT}, file)


def main() -> int:
    """Set the environment up; return the exit code."""
    start = time.monotonic()
    try:
        check_python()
        wanted = fingerprint()
        if is_current(wanted):
            return 0
        check_venv_module()
        check_disk()
        import fcntl

        with open(LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `make` waits for the first instead of installing over it
            if not is_current(wanted):
                install(wanted)
                print("setup: ready after %.0f s" % (time.monotonic() - start), flush=True)
    except SetupError as error:
        print("setup: %s" % error, file=sys.stderr)
        return 1
    except OSError as error:
        print("setup: %s: check space and rights in %s, then run make again" % (error, ROOT), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the next run starts it again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
