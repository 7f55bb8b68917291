"""`predict('flight_delay', t)` in SQL: rows scored by a version's bundle, by the contract that serving has.

The model is part of the query's text, so each call is bound to a function of that version's own types. A row is a
struct: the alias of a table, or `{'origin': origin, …}`. DuckDB gives 2,048 rows at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.features.online.pushed_rows import view_tables
from ml_platform.features.point_in_time.lookup_index import LookupIndex
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.views.load import load_views
from ml_platform.features.views.recorded_definitions import ViewChanged
from ml_platform.features.views.view import FeatureView
from ml_platform.governance.audit import record_event
from ml_platform.inference.frame_scorer import ROW, FrameScorer, ScoredRows, ScoringOptions, answers
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.access import Guard
from ml_platform.lake.query.sql_functions import PREDICT
from ml_platform.lake.query.time_travel_sql import nodes
from ml_platform.lake.storage.tables import Lake
from ml_platform.project import current_project
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.scoring.model_reference import ModelReference
from ml_platform.settings import Settings

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_USAGE = "wanted predict('<model>', <row>): the model's name as a text, and the alias of a table or {'input': value, …}"
_TYPES = {"binary": "BOOLEAN", "multiclass": "VARCHAR", "regression": "DOUBLE"}


class RowsRefused(ValueError):
    """Rows that serving would refuse."""


@dataclass
class _Called:
    """One version that a query calls, and what became of the rows it was given."""

    model: str
    target: Target
    scorer: FrameScorer
    read: int = 0
    refused: int = 0

    def rows(self, values: "pa.ChunkedArray") -> ScoredRows:
        """Score rows that are structs (raises ValueError)."""
        manifest = self.scorer.manifest
        given = pl.Series("row", values)
        if not isinstance(given.dtype, pl.Struct):
            raise ValueError(f"{_USAGE}; the second is {given.dtype}")
        there = {one.name: one for one in given.dtype.fields}
        if missing := [one.name for one in manifest.inputs if one.required and one.name not in there]:
            raise ValueError(f"{manifest.model} wants {', '.join(missing)}; the row has {', '.join(there)}")
        needed = [one.name for one in manifest.inputs]
        null = pl.Series([None] * given.len(), dtype=pl.Null)
        frame = pl.DataFrame(
            {name: given.struct.field(name) if name in there else null.alias(name) for name in needed},
            height=given.len(),
        )
        scored = self.scorer.score(frame)
        self.read += given.len()
        self.refused += scored.refused_rows
        return scored


@dataclass
class PredictFunctions:
    """The functions `predict`, `predict_score`, `try_predict` and `try_predict_score` over a project's releases.

    Parameters
    ----------
    settings
        Where lake, releases and audit log are.
    views
        Gives the feature views by name; called when a model looks some up.
    guard
        Decides whose predictions may be asked for (`predict` on `model:<name>`); what a model looks up is read for it,
        as it is over HTTP. None: every model's.
    """

    settings: Settings
    views: Callable[[], Mapping[str, FeatureView]]
    guard: Guard | None = None
    _failed: list[Exception] = field(default_factory=list)

    @contextmanager
    def made_for(
        self,
        tree: dict[str, Any],
        connection: "duckdb.DuckDBPyConnection",
        versions: Mapping[str, int],
        as_of: datetime | None,
    ) -> Iterator[bool]:
        """See `ml_platform.lake.query.sql_functions.SqlFunctions`.

        Raises
        ------
        ValueError, LookupError
            When a call is not of the form that is wanted, or names no model.
        RowsRefused
            When rows are refused of which `predict` was asked.
        AccessDenied
            When the guard does not grant `predict` on a model.
        """
        import duckdb

        calls = [node for node in nodes(tree) if _is_call(node)]
        if not calls:
            yield False
            return
        by_version: dict[tuple[str, int], _Called] = {}
        store = ReleaseStore(self.settings.releases_dir)
        made = set()
        named = _select_list(tree)
        for call in calls:
            reference, arguments = _arguments(call)
            if self.guard is not None:
                self.guard.check("predict", f"model:{reference.model}")
            target = reference.resolve(store)
            version = reference.model, target.version
            if version not in by_version:
                try:
                    by_version[version] = self._load(reference.model, target, versions, as_of)
                except (BundleRefused, ViewChanged) as error:
                    raise ValueError(str(error)) from error
            called = by_version[version]
            function = str(call["function_name"]).lower()
            own = f"{function}_{reference.model}_v{target.version}"
            if own not in made:
                self._create(connection, own, function, called)
                made.add(own)
            if any(call is one for one in named) and not call["alias"]:
                call["alias"] = function
            call |= {"function_name": own, "qualified_name": {"path": [own]}, "arguments": arguments}
        self._failed.clear()
        try:
            yield True
        except duckdb.Error as error:
            if self._failed:
                raise self._failed[0] from error  # as it was, not as DuckDB wraps it
            raise
        finally:
            for called in by_version.values():
                self._record(called)

    def _load(self, model: str, target: Target, versions: Mapping[str, int], as_of: datetime | None) -> _Called:
        lake, store = Lake(self.settings.lake_uri), ReleaseStore(self.settings.releases_dir)
        scorer = Scorer.load(store.bundle_path(target.digest))
        manifest = scorer.manifest
        # A call has no other instant than the row's own; a model whose requests have none is asked about now.
        options = ScoringOptions(manifest.as_of, now=as_of or datetime.now(UTC), where=f"predict('{model}', …)")
        lookups = self._lookups(lake, manifest, versions, as_of) if manifest.lookups else []
        return _Called(model, target, FrameScorer(scorer, lookups, options))

    def _lookups(
        self, lake: Lake, manifest: Manifest, versions: Mapping[str, int], as_of: datetime | None
    ) -> list[LookupIndex]:
        views = self.views()
        definitions = FeatureDefinitions.of_manifest(manifest, views, timestamp="")  # which look-ups do not need
        tables = sorted({table for one in definitions.lookups for table in view_tables(lake, views[one.view])})
        pins = {
            table: versions[table] if table in versions else lake.snapshot(table, as_of=as_of).version()
            for table in tables
        }
        index = LookupIndex.newest if manifest.as_of is None else LookupIndex.point_in_time
        return [index(one) for one in definitions.resolve(lake, views, pins)]

    def _create(self, connection: "duckdb.DuckDBPyConnection", name: str, function: str, called: _Called) -> None:

        is_tried, is_score = function.startswith("try_"), function.endswith("_score")
        manifest = called.scorer.manifest

        def compute(*rows: Any) -> Any:  # DuckDB evaluates the annotations
            try:
                if len(rows) != 1:
                    raise ValueError(_USAGE)
                scored = called.rows(rows[0])
                if scored.refused and not is_tried:
                    raise RowsRefused(_why_refused(scored, manifest, function))
                score, prediction = answers(manifest, scored.scores)
                values = score if is_score else prediction
                if scored.rows.height < len(rows[0]):
                    places = pl.Series([None], dtype=pl.UInt32).new_from_index(0, len(rows[0]))
                    numbers = pl.int_range(scored.rows.height, dtype=pl.UInt32, eager=True)
                    values = values.gather(places.scatter(scored.rows.get_column(ROW), numbers))
                return values.to_arrow(compat_level=pl.CompatLevel.oldest())
            except Exception as error:
                self._failed.append(error)
                raise

        kind = "DOUBLE" if is_score else _TYPES[manifest.task]
        create: Any = connection.create_function  # whose types lack this way
        create(
            name,
            compute,
            None,
            kind,
            type="arrow",
            null_handling="special",
        )

    def _record(self, called: _Called) -> None:
        if called.read:
            record_event(
                self.settings.audit_dir,
                self.settings.keys_dir,
                "predicted in SQL",
                f"{called.model} version {called.target.version}: {called.read} rows, {called.refused} refused",
            )


def project_functions(guard: Guard | None = None) -> PredictFunctions:
    """The functions over the project's own releases and views, for whom a guard speaks."""
    return PredictFunctions(Settings(), lambda: load_views(current_project().defs / "features"), guard)


def _is_call(node: Mapping[str, Any]) -> bool:
    return node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() in PREDICT


def _arguments(call: Mapping[str, Any]) -> tuple[ModelReference, list[Any]]:
    """The model that a call names, and its other argument (raises ValueError)."""
    arguments = call["arguments"]
    model = arguments[0]["expression"] if arguments else {}
    text = model.get("literal", {}) if model.get("class") == "CONSTANT" else {}
    if len(arguments) != 2 or text.get("kind") != "STRING":
        raise ValueError(f"{call['function_name']}: {_USAGE}")
    return ModelReference.read(text["text"]), arguments[1:]


def _select_list(tree: Any) -> list[Any]:
    """The items of the tree's select lists."""
    return [item for node in nodes(tree) for item in node.get("select_list") or ()]


def _why_refused(scored: ScoredRows, manifest: Manifest, function: str) -> str:
    first = scored.refused[0]
    more = f" (and {scored.refused_rows - 1:,} more of these rows)" if scored.refused_rows > 1 else ""
    return (
        f"{function}('{manifest.model}', …): {first.field}: {first.message}{more}; try_{function} gives NULL for a row "
        "that serving would refuse"
    )
