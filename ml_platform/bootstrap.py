"""Makes `.venv` and installs the project with the extras it is given; the Makefile runs it before anything else.

    python bootstrap.py [EXTRA ...]

The extras are those of the project's `pyproject.toml`, the versions those of `requirements.lock`, which covers all
extras; wheels in the project's folder `vendor` count as published. An extra that was installed once stays. Run again it
returns at once, unless it is given a new extra, or the lock, `pyproject.toml`, `vendor`, the Python or the project's
place changed.

Only the standard library, and only syntax that old Pythons can read: a Python that is too old must be told so in one
line.
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
NEEDED_BYTES = 7 * 1024**3 // 2  # .venv is up to 2.7 GiB, the rest is the installer's cache and what the demo writes
BEAT_SECONDS = 15


def project_folder(folder: str) -> str:
    """Return the nearest folder with a `pyproject.toml`, from this one upwards; this one where there is none."""
    above = folder
    while not os.path.exists(os.path.join(above, "pyproject.toml")):
        above, below = os.path.dirname(above), above
        if above == below:
            return folder
    return above


ROOT = project_folder(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
PYPROJECT = os.path.join(ROOT, "pyproject.toml")
LOCK = os.path.join(ROOT, "requirements.lock")
VENDOR = os.path.join(ROOT, "vendor")
STAMP = os.path.join(VENV, "bootstrap.json")
UNFINISHED = os.path.join(VENV, "bootstrap.unfinished")
LOG = os.path.join(VENV, "bootstrap.log")


class SetupError(Exception):
    """What went wrong and what to do, as one line."""


def check_python() -> None:
    """Raise `SetupError` unless this Python is one that the locked dependencies support."""
    version = sys.version_info[:2]
    if OLDEST <= version <= NEWEST:
        return
    wanted = "%d.%d\u2013%d.%d" % (OLDEST + NEWEST)
    other = working_python()
    remedy = "set PYTHON=\u2026" + (" (`make PYTHON=%s \u2026`)" % other if other else "")
    word = "old" if version < OLDEST else "new"
    raise SetupError("Python %d.%d is too %s: %s wanted, %s" % (version[0], version[1], word, wanted, remedy))


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


def declared_extras() -> list:
    """Return the extras that the project declares."""
    import tomllib

    with open(PYPROJECT, "rb") as file:
        try:
            project = tomllib.load(file).get("project", {})
        except tomllib.TOMLDecodeError as error:
            raise SetupError("%s is no TOML: %s" % (PYPROJECT, error)) from None
    return sorted(project.get("optional-dependencies", {}))


def check_extras(extras: list) -> None:
    """Raise `SetupError` for an extra that the project does not declare; an installer would only warn."""
    declared = declared_extras()
    unknown = sorted(set(extras) - set(declared))
    if unknown:
        wanted = ", ".join(declared) or "none"
        raise SetupError("no extra %s in %s, which declares: %s" % (", ".join(unknown), PYPROJECT, wanted))


def vendored() -> list:
    """Return the files in `vendor`, where a project may keep wheels that no index has."""
    names = sorted(os.listdir(VENDOR)) if os.path.isdir(VENDOR) else []
    return [path for path in (os.path.join(VENDOR, name) for name in names) if os.path.isfile(path)]


def fingerprint() -> str:
    """Return what the environment depends on besides its extras: lock, project file, vendored wheels, Python, place."""
    digest = hashlib.sha256()
    for path in [LOCK, PYPROJECT] + vendored():  # noqa: RUF005
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


def is_current(wanted: str, extras: list) -> bool:
    """Return whether a run with these extras finished with the same fingerprint, and its Python is still there."""
    stamp = last_stamp()
    installed = stamp.get("fingerprint") == wanted and set(extras) <= set(stamp.get("extras", []))
    return installed and os.path.exists(VENV_PYTHON)


def can_reuse() -> bool:
    """Return whether `.venv` is whole, of this Python and made in this place, so that an update in place is enough."""
    stamp = last_stamp()
    same = stamp.get("python") == sys.version and stamp.get("root") == ROOT and "extras" in stamp
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


def install(wanted: str, extras: list) -> None:
    """Make the environment, or bring an existing one up to the lock file, and stamp it when all went well."""
    again = "check the network (or the package index that pip.conf / UV_DEFAULT_INDEX name), then run make again"
    reuse = can_reuse()
    if reuse:
        extras = sorted(set(extras) | set(last_stamp().get("extras", [])) & set(declared_extras()))
    elif os.path.exists(VENV):
        shutil.rmtree(VENV)
    os.makedirs(VENV, exist_ok=True)
    with open(UNFINISHED, "w") as file:
        file.write("removed when the setup is complete\n")
    if not reuse:
        title = "making .venv with Python %d.%d.%d" % sys.version_info[:3]
        step(title, [sys.executable, "-m", "venv", VENV], "is the disk writable and python3-venv installed?")
    pip = [VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    step("installing uv", pip + ["uv>=0.9"], again)  # noqa: RUF005
    title = "installing the project with %s" % (", ".join(extras) or "no extras")
    step(title, install_command(extras), again + "; where lock and pyproject.toml disagree, `make lock`")
    os.remove(UNFINISHED)
    with open(STAMP, "w") as file:
        json.dump({"fingerprint": wanted, "extras": extras, "python": sys.version, "root": ROOT}, file)


def install_command(extras: list) -> list:
    """Return the command that installs the project in place with these extras, at the locked versions."""
    command = [os.path.join(VENV, "bin", "uv"), "pip", "install", "--python", VENV_PYTHON, "--constraint", LOCK]
    if vendored():
        command += ["--find-links", VENDOR]
    return command + ["--editable", ".[%s]" % ",".join(extras) if extras else "."]  # noqa: RUF005


def main(arguments: "list | None" = None) -> int:
    """Set the environment up with the extras of the command line; return the exit code."""
    start = time.monotonic()
    extras = sorted(set(sys.argv[1:] if arguments is None else arguments))
    try:
        check_python()
        if not os.path.exists(PYPROJECT):
            raise SetupError("no pyproject.toml in %s or a folder above it" % ROOT)
        wanted = fingerprint()
        if is_current(wanted, extras):
            return 0
        check_extras(extras)
        check_venv_module()
        check_disk()
        import fcntl

        with open(LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `make` waits for the first instead of installing over it
            if not is_current(wanted, extras):
                install(wanted, extras)
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
