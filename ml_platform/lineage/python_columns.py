"""Which columns a Python function of Polars uses: of a view by its plan, of a raw table's `transform` by its source.

A view's function is given lazy frames without rows that record which columns Polars asks for, once for each column of
the view alone. A `transform` gets a frame with rows and may look into them, so it is not run: each expression of its
code that names an output is taken to depend on every column that the expression mentions, through local variables and
functions of the same module. That may be a column too many, and not one too few unless names are computed.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from ml_platform.features.views.view import FeatureView
from ml_platform.lineage.graph import Kind

Uses = dict[str, dict[tuple[str, str], frozenset[Kind]]]  # output → (table, column) → how
_READ: frozenset[Kind] = frozenset({"read"})
_COPY: frozenset[Kind] = frozenset({"copy"})
_FILTER: frozenset[Kind] = frozenset({"filter"})


def view_uses(view: FeatureView, schemas: Mapping[str, Mapping[str, pl.DataType]]) -> Uses:
    """What each column of a view in Python depends on; everything, where its function cannot be run without rows.

    Parameters
    ----------
    schemas
        Lake table → its columns, in the order of the function's arguments.
    """
    everything = {(table, name): _READ for table, schema in schemas.items() for name in schema}
    assert view.function is not None
    uses: Uses = {}
    for output in (*view.keys, *view.columns):
        read: set[tuple[str, str]] = set()
        frames = [_recording(table, schema, read) for table, schema in schemas.items()]
        try:
            view.function(*frames).select(output).collect()
        except Exception:  # noqa: BLE001 - the user's code, which may need rows: then nothing is known to be unused
            uses[output] = dict(everything)
            continue
        uses[output] = dict.fromkeys(sorted(read), _READ)
    return uses


def _recording(table: str, schema: Mapping[str, pl.DataType], read: set[tuple[str, str]]) -> pl.LazyFrame:
    def source(
        columns: list[str] | None, predicate: pl.Expr | None, _rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = list(schema) if columns is None else columns
        needed = wanted if predicate is None else [*wanted, *predicate.meta.root_names()]
        read.update((table, name) for name in needed)
        yield pl.DataFrame(schema=dict(schema)).select(wanted)

    return register_io_source(source, schema=dict(schema))


def transform_uses(
    function: Callable[[pl.DataFrame], pl.DataFrame], inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, dict[str, frozenset[Kind]]]:
    """What each column depends on that a function makes of a frame: output → input → how."""
    everything = dict.fromkeys(inputs, _READ)
    try:
        code = _Code(function)
    except (OSError, TypeError, SyntaxError):  # no source to read, as of a built-in
        return {output: dict(everything) for output in outputs}
    given = set(inputs)
    uses = {}
    for output in outputs:
        names = code.behind(output)
        if output in given and (names is None or names == {output}):
            uses[output] = {output: _COPY}
        else:
            found = (names or set()) & given or code.unnamed & given
            uses[output] = dict.fromkeys(sorted(found), _READ) or dict(everything)
        for name in code.deciding & given:
            uses[output].setdefault(name, _FILTER)
    return uses


class _Code:
    """Expressions of a function and of what it calls in its module: output → names that are mentioned in making it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.made: dict[str, set[str]] = {}
        self.unnamed: set[str] = set()  # mentioned by expressions whose output's name is not told
        self.deciding: set[str] = set()  # mentioned where rows are chosen
        self._variables: dict[str, set[str]] = {}
        self._functions: dict[str, set[str]] = {}
        self._seen: set[str] = set()
        self._visit(function)

    def behind(self, output: str) -> set[str] | None:
        """Names that an output is made of, and those are made of in turn; None if no expression makes it."""
        if output not in self.made:
            return None
        names, open_ = set[str](), {output}
        while open_:
            name = open_.pop()
            names.add(name)
            open_ |= self.made.get(name, set()) - names
        return names

    def _visit(self, function: Callable[..., Any]) -> None:
        if not isinstance(function, FunctionType) or function.__qualname__ in self._seen:
            return
        self._seen.add(function.__qualname__)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        for node in ast.walk(tree):  # helpers first, so that what they mention is known
            if isinstance(node, ast.Call):
                helper = self._helper(node.func, function.__globals__)
                if helper is not None and _package(helper) == _package(function):
                    self._visit(helper)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    for name in ast.walk(target):
                        if isinstance(name, ast.Name):
                            self._variables.setdefault(name.id, set()).update(self._strings(node.value))
        self._functions[function.__name__] = self._mentioned(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                self._call(node)

    @staticmethod
    def _helper(func: ast.expr, modules: Mapping[str, Any]) -> FunctionType | None:
        if isinstance(func, ast.Name):
            found = modules.get(func.id)
        elif isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
            found = getattr(modules.get(func.value.id), func.attr, None)
        else:
            return None
        return found if isinstance(found, FunctionType) and not found.__module__.startswith("polars") else None

    def _call(self, node: ast.Call) -> None:
        assert isinstance(node.func, ast.Attribute)
        if node.func.attr in {"select", "with_columns", "agg"}:
            for keyword in node.keywords:
                if keyword.arg is not None:
                    self._make(keyword.arg, keyword.value)
            for argument in node.args:
                self._positional(argument)
        elif node.func.attr in {"filter", "unique", "drop_nulls", "join", "group_by", "limit", "head", "tail"}:
            self.deciding |= {
                name for one in (*node.args, *(k.value for k in node.keywords)) for name in self._mentioned(one)
            }
        elif node.func.attr == "rename" and node.args and isinstance(node.args[0], ast.Dict):
            for key, value in zip(node.args[0].keys, node.args[0].values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    self.made.setdefault(str(value.value), set()).add(str(key.value))

    def _make(self, output: str, value: ast.expr) -> None:
        self.made.setdefault(output, set()).update(self._mentioned(value))

    def _positional(self, argument: ast.expr) -> None:
        if isinstance(argument, ast.Starred):
            argument = argument.value
        if (
            isinstance(argument, ast.Call)
            and isinstance(argument.func, ast.Attribute)
            and argument.func.attr == "alias"
        ):
            names = self._strings(argument.args[0]) if argument.args else set()
            for name in names:
                self._make(name, argument.func.value)
            return
        mentioned = self._mentioned(argument)
        if any(isinstance(node, ast.Call) for node in ast.walk(argument)):  # named by one of the columns, or by itself
            self.unnamed |= mentioned
            for name in mentioned:
                self.made.setdefault(name, set()).update(mentioned)
        else:
            for name in mentioned:  # columns by their names, as they are
                self.made.setdefault(name, set()).add(name)

    def _mentioned(self, node: ast.AST) -> set[str]:
        """Texts in an expression, and in the variables and functions that it uses."""
        names = self._strings(node)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                names |= self._variables.get(inner.id, set()) | self._functions.get(inner.id, set())
            elif isinstance(inner, ast.Attribute):
                names |= self._functions.get(inner.attr, set())
        return names

    def _strings(self, node: ast.AST) -> set[str]:
        names = {
            inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
        }
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and inner.id in self._variables:
                names |= self._variables[inner.id]
        return names


def _package(function: FunctionType) -> str:
    return function.__module__.rpartition(".")[0] or function.__module__
