"""What definitions protect, as a file beside the policy: serving decides by it which values of a look-up are for whom.

Serving imports this: standard library and msgspec only. It has no definitions of the project, and evaluates no SQL: of
masks and filters the file says only for whom they do not count.
"""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ml_platform.atomic_files import FileStamp, file_stamp, replace_file
from ml_platform.governance.access.objects import CatalogueObject, table_object
from ml_platform.governance.access.policy import Policy
from ml_platform.governance.access.principals import Principal
from ml_platform.governance.access.tag_flow import ALL_COLUMNS, FLOWS, ColumnTags, column_tags
from ml_platform.lineage.graph import ColumnGraph, Edge

RELOAD_SECONDS = 0.3
FILE = "protections.json"
_VIEWS: Final = "features/"
_MOST_REMEMBERED = 10_000  # decisions


class PublishedTable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is protected in one table; names of columns are in lower case."""

    columns: tuple[str, ...] = ()  # of a view: all that are known; none of other tables
    event_time: str = ""  # of a view
    row_filter: tuple[str, ...] | None = None  # principals for whom the filter does not count; None: there is none
    masks: dict[str, tuple[str, ...]] = {}  # column → principals for whom its mask does not count
    tags: dict[str, tuple[str, ...]] = {}  # column → declared tags


class Protections(msgspec.Struct, frozen=True):
    """What is protected in views, and what tags flow into them."""

    tables: dict[str, PublishedTable] = {}  # by the lake's names in lower case: all views, and what is tagged
    edges: tuple[Edge, ...] = ()  # by which tags flow


class ViewAccess(NamedTuple):
    """What a caller does not see of a view.

    Attributes
    ----------
    is_known
        Whether it is known what the view protects; if not, nothing of it is shown.
    is_filtered
        Whether some of its rows are hidden.
    hidden
        Columns whose values are hidden, in lower case.
    shown
        Columns whose values are shown, in lower case; None for all that are not hidden.
    event_time
        Name of the view's event time, in lower case.
    """

    is_known: bool
    is_filtered: bool = False
    hidden: frozenset[str] = frozenset()
    shown: frozenset[str] | None = None
    event_time: str = ""

    def hides(self, column: str) -> bool:
        """Whether a column's values are hidden; so are those of a column that was not there when it was published."""
        name = column.lower()
        return not self.is_known or name in self.hidden or (self.shown is not None and name not in self.shown)

    @property
    def hides_time(self) -> bool:
        """Whether the event time is hidden."""
        return not self.is_known or self.event_time in self.hidden


def write_protections(folder: Path, protections: Protections) -> Path:
    """Replace what is published in the platform's `access_dir`; the same again writes nothing."""
    path, content = folder / FILE, msgspec.json.encode(protections)
    if not path.is_file() or path.read_bytes() != content:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    return path


class ProtectionStore:
    """Decides what callers see of views, by the file that was published last.

    Examples
    --------
    >>> import tempfile
    >>> from ml_platform.governance.access.policy import Document
    >>> folder, ada = Path(tempfile.mkdtemp()), Principal("ada", "user")
    >>> view = PublishedTable(columns=("carrier", "mail"), masks={"mail": ("group:support",)})
    >>> _ = write_protections(folder, Protections({"features/carriers": view}))
    >>> access = ProtectionStore(folder).access(Policy(Document()), ada, "carriers")
    >>> access.hides("mail"), access.hides("carrier"), access.is_filtered
    (True, False, False)
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._looked = -1e9
        self._stamp: FileStamp | None = None
        self._protections = Protections()
        self._tags: tuple[Policy, Protections, ColumnTags] | None = None
        self._decided: dict[tuple[str, frozenset[str], bool, str], tuple[ColumnTags, ViewAccess]] = {}

    def access(self, policy: Policy, who: Principal, view: str) -> ViewAccess:
        """What a principal does not see of a view; decided once for each policy and published file."""
        protections, tags = self._current(policy)
        key = (who.text, who.groups, who.is_admin, view)
        known = self._decided.get(key)
        if known is not None and known[0] is tags:  # another thread may have decided by what was in force before
            return known[1]
        access = _decide(policy, protections, tags, who, view)
        if len(self._decided) >= _MOST_REMEMBERED:
            self._decided = {}
        self._decided[key] = (tags, access)
        return access

    def _current(self, policy: Policy) -> tuple[Protections, ColumnTags]:
        self._reload()
        protections, tagged = self._protections, self._tags
        if tagged is None or tagged[0] is not policy or tagged[1] is not protections:
            graph = ColumnGraph(protections.edges)
            self._decided = {}
            self._tags = tagged = (policy, protections, column_tags(policy, protections.tables, graph))
        return protections, tagged[2]

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._looked < RELOAD_SECONDS:
            return
        with self._lock:
            try:
                stamp = file_stamp(self._path)
                if stamp != self._stamp:
                    self._protections = msgspec.json.decode(self._path.read_bytes(), type=Protections)
                    self._stamp = stamp
            except (OSError, msgspec.MsgspecError):  # nothing is known then, and nothing shown
                if self._protections.tables:
                    self._protections = Protections()
                self._stamp = None
            self._looked = now


def _decide(policy: Policy, protections: Protections, tags: ColumnTags, who: Principal, view: str) -> ViewAccess:
    name = f"{_VIEWS}{view}".lower()
    table = protections.tables.get(name)
    if table is None:
        if not who.is_admin:
            return ViewAccess(is_known=False)
        table = PublishedTable()
    wanted, own = table_object(name), tags.get(table_object(name).text, {})
    columns = {*table.columns, *table.masks, *own} - {ALL_COLUMNS}
    hidden = {column for column, exempt in table.masks.items() if not _is_exempt(exempt, who)}
    for column in columns - hidden:
        named = CatalogueObject("column", (*wanted.parts, column))
        if _is_tag_masked(policy, who, own.get(column, own.get(ALL_COLUMNS, frozenset()))) or any(
            policy.explain(who, privilege, named).why.startswith("deny") for privilege in ("select", "use_feature")
        ):
            hidden.add(column)
    return ViewAccess(
        is_known=True,
        is_filtered=table.row_filter is not None and not _is_exempt(table.row_filter, who),
        hidden=frozenset(hidden),
        shown=None if who.is_admin else frozenset(columns - hidden),
        event_time=table.event_time,
    )


def _is_tag_masked(policy: Policy, who: Principal, tags: frozenset[str]) -> bool:
    return any(
        tag in policy.document.masked_tags and not policy.allows(who, "select", CatalogueObject("tag", (tag,)))
        for tag in tags
    )


def _is_exempt(exempt: tuple[str, ...], who: Principal) -> bool:
    return who.is_admin or bool({*exempt} & {*who.identities})


def flows_into_views(graph: ColumnGraph) -> tuple[Edge, ...]:
    """The edges by which tags come to columns of views, sorted."""
    into: dict[tuple[str, str], list[Edge]] = {}
    for edge in graph.edges:
        if edge.kind in FLOWS:
            into.setdefault((edge.target.object.lower(), edge.target.column.lower()), []).append(edge)
    waiting = [key for key in into if key[0].startswith("features.")]
    seen, kept = set(waiting), set[Edge]()
    while waiting:
        for edge in into.get(waiting.pop(), ()):
            kept.add(edge)
            key = (edge.source.object.lower(), edge.source.column.lower())
            if key not in seen:
                seen.add(key)
                waiting.append(key)
    return tuple(sorted(kept))


def lower_keys(columns: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The same by names in lower case, in their order."""
    return {name.lower(): columns[name] for name in sorted(columns)}
