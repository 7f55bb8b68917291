"""Random secrets in files that only their owner may read."""

import os
import secrets
from pathlib import Path

from ml_platform.atomic_files import locked


def load_secret(path: Path, *, create: bool) -> bytes:
    """Read a secret of 256 bits, made first if it is missing and `create` is true.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    if create and not path.exists():
        with locked(path.with_suffix(".secret.lock")):
            if not path.exists():
                staged = path.with_name(f".{path.name}.new")
                staged.unlink(missing_ok=True)
                descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(32))
                    file.flush()
                    os.fsync(file.fileno())
                staged.rename(path)
    return path.read_bytes()
