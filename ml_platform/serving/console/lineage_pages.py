"""The pages and JSON of the column graph: of the stored one, read again when its file changes."""

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import Scope

from ml_platform.atomic_files import FileStamp, file_stamp
from ml_platform.catalogue.visible_lineage import visible_lineage
from ml_platform.lineage.impact import Impact, impact_of
from ml_platform.lineage.objects import Lineage, LineageDocument, document_of, lineage_of
from ml_platform.lineage.pages import column_facts, object_facts, overview_facts
from ml_platform.lineage.store import read_document
from ml_platform.serving.access.governed import GovernedCaller
from ml_platform.serving.http.request_context import RequestContext

NONE_YET = (
    "No graph is stored yet: materialise `catalogue/lineage` in Dagster, or run `ml-platform lineage refresh` on this "
    "machine."
)

_BLANK: dict[str, Any] = {  # what the template knows, whatever the page is of
    "trouble": None, "problems": [], "name": None, "object": None, "object_href": "", "kind": "", "info": None,
    "made_at": None, "picture": "", "hidden": 0, "columns": [], "objects": [], "notes": (), "impact": None,
}  # fmt: skip


class NoGraph(LookupError):
    """There is no stored graph, or it cannot be read."""


class StoredLineage:
    """The graph that was stored last. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed: FileStamp | None = None
        self._document: LineageDocument | None = None
        self._lineage: Lineage | None = None

    def read(self) -> tuple[LineageDocument, Lineage]:
        """Read it, if it has changed (raises NoGraph)."""
        try:
            changed = file_stamp(self._path)
            if changed != self._changed or self._document is None or self._lineage is None:
                document = read_document(self._path)
                if document is None:
                    raise NoGraph(NONE_YET)
                self._document, self._lineage, self._changed = document, lineage_of(document), changed
        except FileNotFoundError:
            raise NoGraph(NONE_YET) from None
        except (OSError, msgspec.MsgspecError) as error:
            raise NoGraph(f"the stored graph cannot be read ({error}): run `ml-platform lineage refresh`") from error
        return self._document, self._lineage

    def read_for(self, scope: Scope) -> tuple[LineageDocument, Lineage]:
        """Read what a caller may see of it (raises NoGraph)."""
        document, lineage = self.read()
        caller = RequestContext.of(scope).key
        if not isinstance(caller, GovernedCaller):
            return document, lineage
        seen = visible_lineage(lineage, caller.policy, caller.principal)
        return document_of(seen, document.made_at), seen  # without the problems, which may name what is hidden

    def page(self, scope: Scope, object_: str | None, column: str | None) -> dict[str, Any]:
        """What the page shows of all, of an object or of a column (raises LookupError for what there is not)."""
        try:
            document, lineage = self.read_for(scope)
        except NoGraph as error:
            return _BLANK | {"trouble": str(error)}
        about = _BLANK | {"made_at": datetime.fromisoformat(document.made_at), "problems": document.problems}
        if object_ is None:
            return about | overview_facts(lineage)
        if column is not None:
            [node] = lineage.find(f"{object_}.{column}")
            return about | column_facts(lineage, node)
        nodes = lineage.find(object_)
        return about | object_facts(lineage, nodes[0].object)

    def part(self, scope: Scope, name: str | None, direction: str) -> LineageDocument:
        """The graph around a column or object, or all of it (raises LookupError)."""
        document, lineage = self.read_for(scope)
        if name is None:
            return document
        part = lineage.graph.around(
            lineage.find(name), upstream=direction != "downstream", downstream=direction != "upstream"
        )
        known = {one: lineage.info(one) for one in part.objects}
        return document_of(Lineage(part, known, lineage.notes), document.made_at, document.problems)

    def impact(self, scope: Scope, name: str) -> Impact:
        """What depends on a column or object (raises LookupError)."""
        _, lineage = self.read_for(scope)
        return impact_of(lineage, lineage.find(name))
