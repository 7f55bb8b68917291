"""Questions to the record of reads, and their answers, for those who manage what was read.

Serving asks `ml_platform.governance.find_reads` in a process of its own, so this imports the standard library, msgspec
and the policy only.
"""

from datetime import datetime

from msgspec import Struct

from ml_platform.governance.access.objects import NoObject, parse_object
from ml_platform.governance.access.policy import Policy
from ml_platform.governance.access.principals import Principal

DAYS = 30  # that are looked at where no time is given
MOST_READS = 1000  # on a page


class ReadQuery(Struct, kw_only=True, frozen=True):
    """Which reads are wanted.

    Attributes
    ----------
    asks
        Who asks: reads of what they manage are given. None for somebody who may see all.
    object, column, who
        Only reads of this object, of this column of it, by this reader (with or without its kind).
    since, until
        Instants between which they were; `until` is not in it. The last 30 days when None.
    page, limit
        Which page, from 1, and how many on one; the newest come first.
    by_reader
        Summed up by reader in place of single reads.
    """

    asks: Principal | None = None
    object: str | None = None
    column: str | None = None
    who: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    page: int = 1
    limit: int = 100
    by_reader: bool = False


class RecordedRead(Struct, kw_only=True, frozen=True):
    """A read: by whom, of which object, how; `rows` is None where the number was not known when they were given."""

    time: datetime
    who: str
    object: str
    version: int | None
    columns: tuple[str, ...]
    rows: int | None
    path: str
    refused: bool


class Reader(Struct, kw_only=True, frozen=True):
    """All reads by somebody: how many, of how many rows, how many refused, in which ways, and the last."""

    who: str
    reads: int
    rows: int
    refused: int
    paths: tuple[str, ...]
    last: datetime


class UnusualRead(Struct, kw_only=True, frozen=True):
    """What is unusual about today's reads of somebody."""

    who: str
    rule: str
    what: str


class ReadAnswer(Struct, kw_only=True, frozen=True):
    """What is on record; `total` counts reads, or readers, of all pages."""

    since: datetime
    until: datetime
    total: int
    reads: tuple[RecordedRead, ...] = ()
    readers: tuple[Reader, ...] = ()
    unusual: tuple[UnusualRead, ...] = ()
    is_recorded: bool = True  # whether reads are written down here at all
    problems: tuple[str, ...] = ()


def may_audit(policy: Policy, who: Principal, name: str) -> bool:
    """Whether a principal may see who read an object: with `manage` on it. What is no name is for admins.

    Examples
    --------
    >>> from ml_platform.governance.access.policy import Document, Grant
    >>> policy = Policy(Document(grants=(Grant(privilege="manage", object="raw", principal="user:ada"),)))
    >>> ada = Principal("ada", "user")
    >>> may_audit(policy, ada, "raw.flights"), may_audit(policy, ada, "model:late"), may_audit(policy, ada, "?")
    (True, False, False)
    """
    try:
        wanted = parse_object(name)
    except NoObject:
        return who.is_admin
    return policy.allows(who, "manage", wanted)
