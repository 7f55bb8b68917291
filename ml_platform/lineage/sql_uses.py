"""How a query uses columns: as values, or only to join, filter, group, order, window rows; by sqlglot's syntax tree."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

from ml_platform.lineage.graph import DIRECT, Kind

Column = tuple[str, str]  # (`schema.name`, column)
Uses = list[tuple[str, dict[Column, frozenset[Kind]]]]  # per output column, in the order of the query
_Found = dict[Column, set[Kind]]
_ROWS: Kind = "join"  # a list that is unnested is joined to its row


class _Result(NamedTuple):
    """What a SELECT depends on: each of its columns, and which rows it has."""

    outputs: list[tuple[str, _Found]]
    rows: _Found


def uses_of(sql: str, tables: Mapping[str, Mapping[str, str]]) -> Uses | None:
    """Say how each output column of a query uses the columns of its tables; None if sqlglot cannot tell.

    Columns may be missing, and be listed that have no influence: `sql_columns` holds them against DuckDB's plan. Where
    a name could not be resolved, every use that is not known to be direct is also `read`.
    """
    schema: dict[str, Any] = {}
    for table, columns in tables.items():
        database, _, name = table.partition(".")
        schema.setdefault(database, {})[name] = dict(columns)
    scope = _scope(sql, schema)
    if scope is None:
        return None
    tracer = _Tracer(tables)
    result = tracer.trace(scope)
    uses = []
    for name, found in result.outputs:
        merged: _Found = {}
        _add(merged, found)
        _add(merged, result.rows)
        if tracer.is_unsure:
            for kinds in merged.values():
                if not kinds & DIRECT:
                    kinds.add("read")
        uses.append((name, {column: frozenset(kinds) for column, kinds in merged.items()}))
    return uses


def _scope(sql: str, schema: dict[str, Any]) -> Scope | None:
    try:
        query = qualify(
            parse_one(sql, dialect="duckdb"),
            dialect="duckdb",
            schema=schema,
            allow_partial_qualification=True,
            validate_qualify_columns=False,
        )
        return build_scope(query)
    except (SqlglotError, RecursionError, AttributeError, KeyError, TypeError, ValueError):
        return None  # a dialect's corner that sqlglot does not know: DuckDB's plan alone tells


class _Tracer:
    def __init__(self, tables: Mapping[str, Mapping[str, str]]) -> None:
        self.is_unsure = False  # whether a name could not be resolved
        self._columns = {
            table.lower(): (table, {column.lower(): column for column in columns}) for table, columns in tables.items()
        }
        self._results: dict[int, _Result] = {}

    def trace(self, scope: Scope) -> _Result:
        """Trace a scope; a recursive CTE within itself adds nothing to what it starts from."""
        if id(scope) in self._results:
            return self._results[id(scope)]
        self._results[id(scope)] = _Result([], {})
        result = self._union(scope) if scope.set_operation_scopes else self._select(scope)
        self._results[id(scope)] = result
        return result

    def _union(self, scope: Scope) -> _Result:
        operation = scope.expression
        left, right = (self.trace(one) for one in scope.set_operation_scopes)
        rows: _Found = {}
        _add(rows, left.rows)
        _add(rows, right.rows)
        outputs = [(name, {column: set(kinds) for column, kinds in found.items()}) for name, found in left.outputs]
        if isinstance(operation, exp.Union):
            self._merge(outputs, right.outputs, by_name=bool(operation.args.get("by_name")))
            compares = bool(operation.args.get("distinct"))
        else:
            compares = True
        if compares:
            kind: Kind = "group" if isinstance(operation, exp.Union) else "filter"
            for _, found in (*left.outputs, *right.outputs):
                _add(rows, found, kind)
        for key in ("order", "limit"):
            if (clause := operation.args.get(key)) is not None:
                for column in clause.find_all(exp.Column):
                    matching = [found for name, found in outputs if name.lower() == column.name.lower()]
                    self.is_unsure |= not matching
                    for found in matching:
                        _add(rows, found, "order")
        return _Result(outputs, rows)

    @staticmethod
    def _merge(outputs: list[tuple[str, _Found]], others: list[tuple[str, _Found]], *, by_name: bool) -> None:
        positions = {name.lower(): number for number, (name, _) in enumerate(outputs)}
        for number, (name, found) in enumerate(others):
            position = positions.get(name.lower()) if by_name else number
            if position is None or position >= len(outputs):
                outputs.append((name, {column: set(kinds) for column, kinds in found.items()}))
            else:
                _add(outputs[position][1], found)

    def _select(self, scope: Scope) -> _Result:
        select = scope.expression
        if isinstance(select, exp.UDTF | exp.Table):  # unnest(…) among the tables
            found = self._uses(select, scope, "projection")
            names = [column.name for column in (select.args.get("alias") or exp.TableAlias()).args.get("columns") or ()]
            rows = {column: {_ROWS} for column in found}
            return _Result([(name, found) for name in names], rows)
        if not isinstance(select, exp.Select):
            self.is_unsure = True
            return _Result([], {})
        outputs = [(item.alias_or_name, self._uses(item.unalias(), scope, "projection")) for item in select.expressions]
        self.is_unsure |= any(table.args.get("pivots") for table in (select, *scope.tables))
        return _Result(outputs, self._rows(scope, select, outputs))

    def _rows(self, scope: Scope, select: exp.Select, outputs: list[tuple[str, _Found]]) -> _Found:
        """Columns that decide which rows a SELECT has, and in which order."""
        rows: _Found = {}
        for _, source in scope.selected_sources.values():
            if isinstance(source, Scope):
                _add(rows, self.trace(source).rows)
        for clause, kind in _clauses(select):
            _add(rows, self._uses(clause, scope, kind))
        grouped, distinct = select.args.get("group"), select.args.get("distinct")
        is_group_by_all = grouped is not None and bool(grouped.args.get("all"))
        is_distinct = distinct is not None and distinct.args.get("on") is None
        if distinct is not None and not is_distinct:
            _add(rows, self._uses(distinct.args["on"], scope, "group"))
        for item, (_, found) in zip(select.expressions, outputs, strict=True):
            if item.find(exp.Unnest, exp.Explode) is not None:  # one row becomes several
                _add(rows, found, _ROWS)
            if is_distinct or (is_group_by_all and item.find(exp.AggFunc) is None):
                _add(rows, found, "group")
        return rows

    def _uses(self, part: exp.Expr, scope: Scope, kind: Kind) -> _Found:
        """Columns that an expression depends on, through its sub-queries: what these give, and which rows they have."""
        found: _Found = {}
        if kind == "projection" and isinstance(part, exp.Column):
            _add(found, self._resolve(part, scope), "copy")
            return found
        parameters = {name.name for one in part.find_all(exp.Lambda) for name in one.expressions}
        for node in _outside_queries(part):
            if isinstance(node, exp.Column):
                if node.name in parameters and not node.table:
                    continue
                _add(found, self._resolve(node, scope), _kind_within(node, part, kind))
            elif isinstance(node, exp.Window) and node.args.get("alias") is not None:
                for column in self._named_window(node.args["alias"].name, scope):
                    _add(found, self._resolve(column, scope), "window" if kind in DIRECT else kind)
            elif isinstance(node, exp.Query) and not isinstance(node, exp.Subquery):
                self._of_subquery(node, part, scope, kind, found)
        return found

    def _of_subquery(self, query: exp.Expr, part: exp.Expr, scope: Scope, kind: Kind, found: _Found) -> None:
        inner = next((one for one in scope.subquery_scopes if one.expression is query), None)
        if inner is None:
            self.is_unsure = True
            return
        result = self.trace(inner)
        decides = any(isinstance(one, exp.Exists | exp.In) for one in _ancestors(query, part))
        own: Kind = "filter" if decides and kind in DIRECT else _kind_within(query, part, kind)
        for _, given in result.outputs:
            _add(found, given, own)
        _add(found, result.rows, None if own in DIRECT else own)

    def _named_window(self, name: str, scope: Scope, depth: int = 0) -> Iterator[exp.Column]:
        for window in scope.expression.args.get("windows") or ():
            if window.name.lower() == name.lower():
                base = window.args.get("alias") or window.args.get("first")
                if isinstance(base, exp.Identifier) and depth < 8:
                    yield from self._named_window(base.name, scope, depth + 1)
                for part in (
                    *(window.args.get("partition_by") or ()),
                    window.args.get("order"),
                    window.args.get("spec"),
                ):
                    if part is not None:
                        yield from part.find_all(exp.Column)
                return
        self.is_unsure = True

    def _resolve(self, column: exp.Column, scope: Scope) -> _Found:
        """What a column comes from, through sub-queries and CTEs; of outer scopes too."""
        within: Scope | None = scope
        while within is not None:
            sources = within.sources
            if column.table:
                named = [source for name, source in sources.items() if name.lower() == column.table.lower()]
            else:
                named = list(sources.values())
            for source in named:
                if (found := self._in_source(column.name, source)) is not None:
                    return found
            within = within.parent
        self.is_unsure = True
        return {}

    def _in_source(self, name: str, source: exp.Expr | Scope) -> _Found | None:
        if isinstance(source, Scope):
            given = [found for output, found in self.trace(source).outputs if output.lower() == name.lower()]
            if given:
                return given[0]
            # A recursive CTE that is being traced has no outputs yet, and adds none that it does not start from.
            return {} if id(source) in self._results and not self._results[id(source)].outputs else None
        if not isinstance(source, exp.Table):
            return None
        table, columns = self._columns.get(f"{source.db}.{source.name}".lower(), ("", {}))
        if name.lower() in columns:
            return {(table, columns[name.lower()]): {"copy"}}
        return None


def _clauses(select: exp.Select) -> Iterator[tuple[exp.Expr, Kind]]:
    kinds: dict[str, Kind] = {
        "where": "filter",
        "having": "filter",
        "qualify": "window",
        "group": "group",
        "order": "order",
        "limit": "filter",
        "offset": "filter",
    }
    for key, kind in kinds.items():
        if (clause := select.args.get(key)) is not None:
            yield clause, kind
    for join in select.args.get("joins") or ():
        for key in ("on", "match_condition"):
            if (clause := join.args.get(key)) is not None:
                yield clause, "join"
        for column in join.args.get("using") or ():
            yield exp.column(column.name), "join"


def _kind_within(node: exp.Expr, part: exp.Expr, kind: Kind) -> Kind:
    """Kind of a use inside an expression, whose own kind is given."""
    if kind not in DIRECT:
        return kind
    found: Kind = kind
    below = node
    for above in _ancestors(node, part):
        if isinstance(above, exp.Window) and below.arg_key != "this":
            return "window"
        if isinstance(above, exp.Filter) and below.arg_key != "this":
            return "filter"
        if isinstance(above, exp.Order) and below.arg_key != "this":
            return "window" if any(isinstance(one, exp.Window) for one in _ancestors(above, part)) else "order"
        if isinstance(above, exp.AggFunc):
            found = "aggregate"
        below = above
    return found


def _ancestors(node: exp.Expr, top: exp.Expr) -> Iterator[exp.Expr]:
    """What a node is in, nearest first, up to an expression, that included."""
    while node is not top and node.parent is not None:
        node = node.parent
        yield node


def _outside_queries(part: exp.Expr) -> Iterable[exp.Expr]:
    """Nodes of an expression, sub-queries themselves included but not what is in them."""
    yield from part.walk(prune=lambda node: isinstance(node, exp.Query) and not isinstance(node, exp.Subquery))


def _add(into: _Found, found: Mapping[Column, set[Kind]], outer: Kind | None = None) -> None:
    """Add uses; with `outer`, they are used in turn as it says."""
    for column, kinds in found.items():
        into.setdefault(column, set()).update(kinds if outer is None else {_composed(outer, kind) for kind in kinds})


def _composed(outer: Kind, inner: Kind) -> Kind:
    if outer not in DIRECT:
        return outer
    if inner not in DIRECT or inner == "read":
        return inner
    if outer == inner == "copy":
        return "copy"
    return "aggregate" if "aggregate" in {outer, inner} else "projection"
