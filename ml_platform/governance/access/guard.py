"""What one principal sees of the lake's tables, by grants, row filters, masks and tags; the lake enforces it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ml_platform.governance.access.objects import CatalogueObject, parse_object, table_object
from ml_platform.governance.access.policy import Policy
from ml_platform.governance.access.principals import Principal
from ml_platform.governance.access.store import PolicyStore
from ml_platform.governance.access.tag_flow import ALL_COLUMNS, ColumnTags, column_tags
from ml_platform.lake.access import AccessDenied, TableAccess
from ml_platform.lake.contracts.protection_check import for_principal
from ml_platform.lake.names import quoted
from ml_platform.spec.protection import Protection, Rule

if TYPE_CHECKING:
    from ml_platform.lineage.graph import ColumnGraph

QUARANTINE = "quarantine/"
TRAINING_SETS = "training_sets/"
# A tag's mask: NULL takes the type of any column; the hash is for texts, other types become NULL.
_HASH = "CASE WHEN typeof({column}) = 'VARCHAR' THEN sha256({column}::VARCHAR) END"


class PolicyGuard:
    """Decides for one principal; a lake that is given it enforces what it says.

    Parameters
    ----------
    who
        The principal; its groups are those of the policy in force, and of its token.
    store
        The policy.
    protections
        Row filters, masks and tags that definitions declare, by the lake's names of tables.
    graph
        Gives what columns are made of, along which tags flow; asked for where there are tags. None: they do not flow.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ml_platform.governance.access.changes import with_grants
    >>> from ml_platform.governance.access.policy import Grant
    >>> store = PolicyStore(Path(tempfile.mkdtemp()) / "access")
    >>> granted = [Grant(privilege="select", object="raw.flights.carrier", principal="user:ada")]
    >>> _ = store.change(lambda document: with_grants(document, granted), "granted", "", by="root")
    >>> guard = PolicyGuard(Principal("ada", "user"), store, {})
    >>> guard.access("raw/flights", ["carrier", "tailnum"]).columns
    {'carrier': None}
    """

    def __init__(
        self,
        who: Principal,
        store: PolicyStore,
        protections: Mapping[str, Protection],
        *,
        graph: "Callable[[], ColumnGraph] | None" = None,
    ) -> None:
        self.principal = who.text
        self._who = who
        self._store = store
        self._protections = {table.lower(): protection for table, protection in protections.items()}
        self._graph = graph
        self._tags: tuple[Policy, ColumnTags] | None = None

    def access(self, table: str, columns: Sequence[str]) -> TableAccess:
        """What the principal sees of a table that has these columns.

        Raises
        ------
        AccessDenied
            When that is nothing. Of a table that the principal may not browse, the error is that of one that does not
            exist.
        """
        policy, who = self._current()
        if table.startswith(QUARANTINE) and not self._is_whole(table.removeprefix(QUARANTINE)):
            raise self._denied(policy, who, "select", table_object(table))
        whole = self._may_select(policy, who, table)
        granted = [
            column for column in columns if _allows_column(policy, who, table_object(table), column, is_whole=whole)
        ]
        if not granted and (columns or not whole):
            raise self._denied(policy, who, "select", table_object(table))
        masks = self._masks(policy, who, table, granted)
        condition = self._row_filter(who, table)
        if len(granted) == len(columns) and not masks:
            return TableAccess(None, condition)
        return TableAccess({column: masks.get(column) for column in granted}, condition)

    def browses(self, table: str) -> bool:
        """Whether the principal may know that a table exists: with any privilege on it or on a column of it."""
        policy, who = self._current()
        if table.startswith(QUARANTINE) and not self.browses(table.removeprefix(QUARANTINE)):
            return False
        return _browses(policy, who, table)

    def check(self, privilege: str, name: str) -> None:
        """Refuse what is not granted on a catalogue object (raises AccessDenied, NoObject)."""
        policy, who = self._current()
        wanted = parse_object(name)
        if not policy.allows(who, privilege, wanted):
            raise self._denied(policy, who, privilege, wanted)

    def _current(self) -> tuple[Policy, Principal]:
        policy = self._store.policy
        claimed = self._who.groups
        return policy, policy.directory.principal(self._who.text, is_admin=self._who.is_admin, claimed=claimed)

    def _is_whole(self, table: str) -> bool:
        """Whether the principal sees a table without filter or mask, as its quarantined rows are kept."""
        policy, who = self._current()
        protection = self._protections.get(table.lower(), Protection())
        names = list({*protection.masks, *self._tagged(policy, table)})
        denied = [
            one.object for one in policy.document.grants if one.denies and one.object.startswith(f"{_name(table)}.")
        ]
        return (
            self._may_select(policy, who, table)
            and self._row_filter(who, table) is None
            and not self._masks(policy, who, table, names)
            and all(policy.allows(who, "select", parse_object(text)) for text in denied)
        )

    def _may_select(self, policy: Policy, who: Principal, table: str) -> bool:
        if policy.allows(who, "select", table_object(table)):
            return True
        if not table.startswith(TRAINING_SETS):
            return False
        verdict = policy.explain(who, "select", table_object(table))
        wanted = CatalogueObject("training_set", (table.removeprefix(TRAINING_SETS),))
        return not verdict.why.startswith("deny") and policy.allows(who, "select", wanted)

    def _row_filter(self, who: Principal, table: str) -> str | None:
        protection = self._protections.get(table.lower())
        if protection is None or protection.row_filter is None or _is_exempt(protection.row_filter, who):
            return None
        return for_principal(protection.row_filter.sql, who.text, who.groups)

    def _masks(self, policy: Policy, who: Principal, table: str, columns: Iterable[str]) -> dict[str, str]:
        """Column → SQL of its mask: the declared one, else that of a tag that the principal may not see."""
        protection = self._protections.get(table.lower(), Protection())
        declared = {name.lower(): rule for name, rule in protection.masks.items()}
        tags = self._tagged(policy, table)
        masks: dict[str, str] = {}
        for column in columns:
            rule = declared.get(column.lower())
            if rule is not None and not _is_exempt(rule, who):
                masks[column] = for_principal(rule.sql, who.text, who.groups)
                continue
            hidden = [
                tag
                for tag in sorted(tags.get(column.lower(), tags.get(ALL_COLUMNS, ())))
                if tag in policy.document.masked_tags
                and not policy.allows(who, "select", CatalogueObject("tag", (tag,)))
            ]
            if hidden:
                hows = {policy.document.masked_tags[tag] for tag in hidden}
                masks[column] = "NULL" if "null" in hows else _HASH.format(column=quoted(column))
        return masks

    def _tagged(self, policy: Policy, table: str) -> Mapping[str, frozenset[str]]:
        """Column → tags of a table, read anew where the policy has changed."""
        if self._tags is None or self._tags[0] is not policy:
            has_tags = policy.document.tags or any(one.tags for one in self._protections.values())
            graph = self._graph() if has_tags and self._graph is not None else None
            self._tags = policy, column_tags(policy, self._protections, graph)
        return self._tags[1].get(table_object(table).text, {})

    def _denied(self, policy: Policy, who: Principal, privilege: str, wanted: CatalogueObject) -> AccessDenied:
        visible = wanted if wanted.kind != "column" else CatalogueObject("table", wanted.parts[:2])
        table = visible.lake_table
        if not (_browses(policy, who, table) if table else policy.allows(who, "browse", wanted)):
            remedy = "There is none of that name that you may see: ask who runs the platform."
            return AccessDenied(who.text, privilege, wanted.text, remedy)
        owner = policy.owner_of(wanted)
        ask = f"{owner} owns it" if owner else "An admin grants it"
        return AccessDenied(
            who.text, privilege, wanted.text, f"{ask}: ml-platform grant {privilege} on {wanted.text} to {who.text}"
        )


def _allows_column(policy: Policy, who: Principal, table: CatalogueObject, column: str, *, is_whole: bool) -> bool:
    wanted = CatalogueObject("column", (*table.parts, column.lower()))
    if policy.allows(who, "select", wanted):
        return True
    return is_whole and not policy.explain(who, "select", wanted).why.startswith("deny")


def _browses(policy: Policy, who: Principal, table: str) -> bool:
    wanted = table_object(table)
    if policy.allows(who, "browse", wanted):
        return True
    if policy.explain(who, "browse", wanted).why.startswith("deny"):
        return False
    if table.startswith(TRAINING_SETS):
        name = CatalogueObject("training_set", (table.removeprefix(TRAINING_SETS),))
        if policy.allows(who, "browse", name):
            return True
    inside = {one.object for one in policy.document.grants if one.object.startswith(f"{wanted.text}.")}
    return any(policy.allows(who, "browse", parse_object(text)) for text in inside)


def _is_exempt(rule: Rule, who: Principal) -> bool:
    return who.is_admin or bool({*rule.exempt} & {*who.identities})


def _name(table: str) -> str:
    return table_object(table).text
