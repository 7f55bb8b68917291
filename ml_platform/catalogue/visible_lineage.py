"""The column graph as a principal may see it: without the objects that they may not browse, and all that names them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ml_platform.catalogue.reader import browses_object, policy_and_reader
from ml_platform.governance.access.objects import CatalogueObject, parse_object, table_object
from ml_platform.governance.access.policy import Policy
from ml_platform.governance.access.principals import Principal
from ml_platform.lineage.graph import ColumnGraph
from ml_platform.lineage.objects import Lineage

if TYPE_CHECKING:
    from ml_platform.settings import Settings

Sees = Callable[[Lineage], Lineage]
_BESIDE = ("source", "stream", "service", "report")  # no grant is on them: who sees what they belong to sees them


def visible_lineage(lineage: Lineage, policy: Policy, who: Principal) -> Lineage:
    """The part of a graph whose objects a principal may browse.

    What no grant can be on (a source, a stream, a feature service, a report) is seen by who may browse everything that
    it is connected with. Texts about an object, a query for example, may name what it reads: they are left out where
    one of those is hidden.
    """
    graph = lineage.graph
    near: dict[str, set[str]] = {name: set() for name in graph.objects}
    reads: dict[str, set[str]] = {name: set() for name in graph.objects}
    for source, target in graph.object_edges():
        near[source].add(target)
        near[target].add(source)
        reads[target].add(source)
    named = {name for name in graph.objects if lineage.info(name).kind not in _BESIDE}
    seen = {name for name in named if browses_object(policy, who, object_of(lineage, name))}
    seen |= {name for name in set(graph.objects) - named if (near[name] & named) and near[name] & named <= seen}
    nodes = [node for node in graph.nodes if node.object in seen]
    edges = (edge for edge in graph.edges if edge.source.object in seen and edge.target.object in seen)
    infos = {}
    for name in seen:
        info = lineage.info(name)
        if not reads[name] <= seen:
            info = type(info)(kind=info.kind, owner=info.owner, description=info.description)
        infos[name] = info
    notes = {column: said for column, said in lineage.notes.items() if column.rpartition(".")[0] in seen}
    return Lineage(ColumnGraph(edges, nodes), infos, notes)


def object_of(lineage: Lineage, name: str) -> CatalogueObject:
    """The object on which rights to know of an object of the graph are granted.

    Examples
    --------
    >>> nothing = Lineage(ColumnGraph(), {})
    >>> [object_of(nothing, name).text for name in ("online.weather", "model:late@3", "predictions.late")]
    ['features.weather', 'model:late', 'predictions.late']
    """
    if ":" in name:
        kind, _, rest = name.partition(":")
        return parse_object(f"{kind}:{rest.partition('@')[0]}")
    schema, _, rest = name.partition(".")
    if schema in ("online", "pushed") or lineage.info(name).kind in ("online", "pushed"):
        return table_object(f"features/{rest.partition('__')[0] if schema == 'pushed' else rest}")
    return table_object(f"{schema}/{rest}")


def sight_of_speaker(settings: "Settings") -> Sees:
    """What who speaks at this terminal may see of a graph: all of it without an access policy.

    Raises
    ------
    AccessDenied
        When a key is wanted, and `ML_PLATFORM_KEY` has none that is valid.
    """
    bound = policy_and_reader(settings)
    if bound is None:
        return lambda lineage: lineage
    policy, principal = bound
    return lambda lineage: visible_lineage(lineage, policy, principal)
