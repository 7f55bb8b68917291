"""Who reads the catalogue, and what they may know of: without an access policy, everybody of everything."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ml_platform.catalogue.document import Entry
from ml_platform.governance.access.objects import CatalogueObject, parse_object, table_object
from ml_platform.governance.access.policy import Policy
from ml_platform.governance.access.principals import EVERYONE, Principal

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.settings import Settings

ANYBODY = Principal(EVERYONE, "group")
_QUARANTINE = "quarantine/"


def objects_of(entry: Entry) -> tuple[CatalogueObject, ...]:  # noqa: PLR0911 - one return for each kind
    """What one has to be able to browse to know of an entry; nothing for terms and notebooks, which are for all.

    Examples
    --------
    >>> [one.text for one in objects_of(Entry(name="version:churn@v2", kind="version", model="churn"))]
    ['model:churn']
    >>> [one.text for one in objects_of(Entry(name="quarantine.raw.a", kind="table", table="quarantine/raw/a"))]
    ['quarantine.raw/a', 'raw.a']
    """
    if entry.kind == "endpoint":
        return (CatalogueObject("endpoint", (entry.title,)),)
    if entry.kind == "training set":
        return (CatalogueObject("training_set", (entry.title,)),)
    if entry.kind in ("model", "version", "stream"):
        return (CatalogueObject("model", (entry.model or entry.title,)),)
    if entry.kind == "source":
        return (table_object(f"raw/{entry.title}"),)
    if entry.kind == "feature service":
        return tuple(table_object(name.replace(".", "/", 1)) for name in entry.upstream)
    if entry.kind in ("notebook", "term"):
        return ()
    table = entry.table or entry.name.replace(".", "/", 1)
    rejected_of = (table_object(table.removeprefix(_QUARANTINE)),) if table.startswith(_QUARANTINE) else ()
    return (table_object(table), *rejected_of)


def browses(policy: Policy, who: Principal, entry: Entry) -> bool:
    """Whether a principal may know of an entry: with the privilege browse, or any on a column of it."""
    return all(browses_object(policy, who, wanted) for wanted in objects_of(entry))


def browses_object(policy: Policy, who: Principal, wanted: CatalogueObject) -> bool:
    """Whether a principal may know of an object: with the privilege browse, or any on a column of it."""
    if policy.allows(who, "browse", wanted):
        return True
    if wanted.kind != "table" or policy.explain(who, "browse", wanted).why.startswith("deny"):
        return False
    inside = {one.object for one in policy.document.grants if one.object.startswith(f"{wanted.text}.")}
    return any(policy.allows(who, "browse", parse_object(text)) for text in inside)


def browser_of(settings: "Settings", who: Principal | None = None) -> Callable[[Entry], bool]:
    """What a principal may know of, or who speaks when None.

    Raises
    ------
    AccessDenied
        When a key is wanted, and `ML_PLATFORM_KEY` has none that is valid.
    """
    bound = policy_and_reader(settings, who)
    if bound is None:
        return lambda _: True
    policy, principal = bound
    return lambda entry: browses(policy, principal, entry)


def policy_and_reader(settings: "Settings", who: Principal | None = None) -> tuple[Policy, Principal] | None:
    """The policy in force with whom it binds, who speaks when None; None while no policy is (raises AccessDenied)."""
    from ml_platform.governance.access.speaker import policy_store, speaker

    store = policy_store(settings)
    return (store.policy, who or speaker(settings, store)) if store.in_use() else None


def lake_of(settings: "Settings", reader: str | None, *, path: str = "catalogue") -> "Lake":
    """The lake as a reader may see it, `user:<name>` or `service:<name>`; as who speaks may when None."""
    from ml_platform.lake.bound import bound_lake

    return bound_lake(settings, path, principal=reader)
