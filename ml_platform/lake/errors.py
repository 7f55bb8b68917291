"""Errors of the lake; each says what was wanted, what was found and what to do next."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches


class TableNotFound(LookupError):
    """A lake table that was asked for does not exist."""

    def __init__(self, table: str, existing: Iterable[str], uri: str) -> None:
        known = sorted(existing)
        near = get_close_matches(table, known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        tables = ", ".join(known) if known else "no tables at all"
        super().__init__(
            f"The lake at {uri} has no table '{table}'; it has: {tables}.{hint} "
            f"Materialise the asset that writes '{table}' first."
        )
        self.table = table


class SchemaMismatch(ValueError):
    """Columns or types do not fit a table or contract."""

    def __init__(self, where: str, problems: Iterable[str], remedy: str) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{where}: {'; '.join(self.problems)}. {remedy}")


class CommitConflict(RuntimeError):
    """Every try to commit to a table lost the race against other writers."""

    def __init__(self, table: str, operation: str, tries: int, rival: str, last: str) -> None:
        super().__init__(
            f"Could not {operation} '{table}': other writers won {tries} times in a row, the last time with {rival} "
            f"({last}). Run it again, or let fewer processes write the same rows of this table at the same time."
        )
        self.table, self.operation, self.rival = table, operation, rival


class NotYetCreated(LookupError):
    """A table was asked for as of an instant before its first commit."""

    def __init__(self, table: str, as_of: datetime, first: datetime) -> None:
        super().__init__(
            f"'{table}' did not exist at {as_of.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: its first known commit is of "
            f"{first:%Y-%m-%d %H:%M:%S} UTC. Ask for a later time, or leave the table out."
        )
        self.table = table


class VersionGone(LookupError):
    """A version of a table whose files were vacuumed."""

    def __init__(self, table: str, version: int, missing: int, files: int) -> None:
        super().__init__(
            f"'{table}' at version {version} cannot be read: {missing} of its {files} files were vacuumed. Read a "
            "newer version. ML_PLATFORM_LAKE_RETENTION_DAYS says how long versions stay readable."
        )
        self.table, self.version = table, version


class StoreUnreachable(ConnectionError):
    """The object store of a lake does not answer, or refuses the credentials."""

    def __init__(self, uri: str, cause: OSError) -> None:
        plain = re.sub(r"\x1b\[\d+m", "", str(cause))  # the store's own errors are coloured and indented
        causes = ": ".join(line.strip(" ↳") for line in plain.splitlines() if line.strip())
        super().__init__(
            f"The lake at {uri} cannot be reached: {causes}. Check ML_PLATFORM_LAKE_URI, the store's variables "
            "(for s3:// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL) and the network."
        )


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn errors of an object store into `StoreUnreachable`; those of a local folder are clear as they are."""
    try:
        yield
    except OSError as error:
        if "://" not in uri:
            raise
        raise StoreUnreachable(uri, error) from error


class EmptyInput(ValueError):
    """A source that must have rows has none."""
