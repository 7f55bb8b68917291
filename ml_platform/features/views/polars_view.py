"""Feature views in Python: a file whose `view` is a function of Polars lazy frames."""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import polars as pl
from pydantic import ValidationError

from ml_platform.features.views.view import FeatureView
from ml_platform.python_files import load_file
from ml_platform.yaml_documents import in_words

ViewFunction = Callable[..., pl.LazyFrame]


def polars_view(
    *,
    description: str,
    owner: str,
    entity: Sequence[str],
    sources: Sequence[str],
    columns: Mapping[str, Mapping[str, Any]],
    name: str | None = None,
    event_time: str = "event_time",
    created: str | None = None,
    ttl: str | timedelta | None = None,
    tags: Mapping[str, str] | None = None,
    incremental: Mapping[str, Any] | None = None,
) -> Callable[[ViewFunction], FeatureView]:
    """Make a feature view from a function that takes one lazy frame per source and returns the view's rows.

    The view's hash covers the function's file, without comments, docstrings and this declaration. Keep helpers in the
    same file: changes of imported code are not noticed.

    Parameters
    ----------
    sources
        Lake tables, in the order of the function's arguments.
    columns
        Feature → its `type`, `description` and `unit`.
    name
        The file's name when absent.
    description, owner, entity, event_time, created, ttl, tags, incremental
        See `FeatureView`.

    Examples
    --------
    >>> @polars_view(
    ...     name="daily_sales",
    ...     description="Sales of a shop on the day before.",
    ...     owner="shops@example.com",
    ...     entity=["shop"],
    ...     sources=["raw/sales"],
    ...     columns={"revenue": {"type": "number", "description": "Sum of the day's receipts.", "unit": "EUR"}},
    ...     ttl="2 days",
    ... )
    ... def view(sales: pl.LazyFrame) -> pl.LazyFrame:
    ...     return sales.select("shop", "revenue", event_time=pl.col("day") + pl.duration(days=1))
    >>> view.table, view.source_tables
    ('features/daily_sales', ('raw/sales',))
    """

    def build(function: ViewFunction) -> FeatureView:
        view = FeatureView.model_validate(
            {
                "name": name or Path(function.__code__.co_filename).stem,
                "description": description,
                "owner": owner,
                "entity": tuple(entity),
                "event_time": event_time,
                "created": created,
                "ttl": ttl,
                "tags": dict(tags or {}),
                "columns": {feature: dict(declared) for feature, declared in columns.items()},
                "incremental": incremental,
                "sources": tuple(sources),
                "code": _meaning(function),
            }
        )
        return view.with_function(function)

    return build


def load_polars_view(path: Path) -> FeatureView:
    """Read the `view` of a Python file.

    Raises
    ------
    ValueError
        If the file has no `view` made by `polars_view`, or what that declares is wrong.
    """
    try:
        module = load_file(path, "ml_platform_feature_view")
    except ValidationError as error:
        raise ValueError(f"{path}: {in_words(error, FeatureView)}") from error
    view = getattr(module, "view", None)
    if not isinstance(view, FeatureView):
        raise ValueError(f"{path}: wanted a function `view` decorated with @polars_view, found {type(view).__name__}")
    return view


def _meaning(function: ViewFunction) -> str:
    """Source of the function's file, without what cannot change a value: comments, docstrings, the declaration."""
    path = Path(function.__code__.co_filename)
    text = path.read_text(encoding="utf-8") if path.is_file() else dedent(inspect.getsource(function))
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            node.decorator_list = []
    return ast.unparse(tree)
