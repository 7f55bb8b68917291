"""Tables whose files are damaged: what the libraries raise then, in one line for a person."""

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
from deltalake.exceptions import DeltaError

UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, DeltaError)
_LONGEST = 300  # characters of a cause


class TableDamaged(ValueError):
    """Files of a table cannot be read although its log names them."""


def damage_in_words(error: BaseException) -> str:
    """The first line of an error of `UNREADABLE`, without the dump of internals that follows it.

    Examples
    --------
    >>> damage_in_words(OSError("Generic error: no commit 3: Backtrace { frames: [ … ] }\\nmore"))
    'Generic error: no commit 3: Backtrace'
    """
    lines = str(error).strip().splitlines()
    first = (lines[0] if lines else type(error).__name__).split(" {", 1)[0]
    return first[:_LONGEST]


@contextmanager
def reading_files_of(*tables: str) -> Iterator[None]:
    """Turn what libraries raise for damaged files into `TableDamaged`, which names the tables that are read.

    Examples
    --------
    >>> with reading_files_of("raw/flights"):
    ...     raise pl.exceptions.ComputeError("parquet: File out of specification")
    Traceback (most recent call last):
    ml_platform.lake.storage.damage.TableDamaged: raw/flights cannot be read: parquet: File out of specification. Its \
files are damaged or gone: restore them from a backup, or read another version
    """
    try:
        yield
    except (ConnectionError, PermissionError):
        raise  # a store that is away, or access that is denied, is no damage
    except UNREADABLE as error:
        raise TableDamaged(
            f"{' or '.join(tables)} cannot be read: {damage_in_words(error)}. Its files are damaged or gone: restore "
            "them from a backup, or read another version"
        ) from error
