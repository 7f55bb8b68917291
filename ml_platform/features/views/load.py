"""Reads the declaration of a feature view from its file: SQL after YAML in a comment, or YAML alone."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ml_platform.features.rolling.arrival_sql import compiled_sql
from ml_platform.features.rolling.spec import Rolling
from ml_platform.features.stream_spec import ARRIVED, ON_TIME
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query import sql
from ml_platform.yaml_documents import LOADER, in_words

_FRONT_MATTER = re.compile(r"\A\s*/\*(?P<yaml>.*?)\*/(?P<sql>.*)\Z", re.DOTALL)


def read_declaration(path: Path) -> dict[str, Any]:
    """Read the fields of a view from a `.sql` or `.yaml` file; `rolling` is compiled to columns and query.

    Raises
    ------
    ValueError
        If the file is not well-formed; the message names it.
    """
    return _declared_yaml(path) if path.suffix == ".yaml" else _declared_sql(path)


def _declared_sql(path: Path) -> dict[str, Any]:
    match = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    if match is None:
        raise ValueError(f"{path}: wanted a leading /* … */ comment with the view's description in YAML, found none")
    declared = _mapping(path, match["yaml"], "the leading comment")
    if "rolling" in declared:
        raise ValueError(f"{path}: `rolling` takes the place of a query; declare it in a .yaml file")
    if "stream" in declared:
        raise ValueError(f"{path}: `stream` feeds the windows of `rolling`; declare both in a .yaml file")
    return {**declared, "sql": match["sql"].strip().rstrip(";")}


def _declared_yaml(path: Path) -> dict[str, Any]:
    declared = _mapping(path, path.read_text(encoding="utf-8"), "the file")
    if surplus := sorted({"columns", "incremental", "sql"} & set(declared)):
        raise ValueError(f"{path}: {surplus} follow from `rolling`; write a .sql file to declare them by hand")
    windows = declared.pop("rolling", {})
    if "stream" in declared:
        windows = streamed_windows(path, windows)
    try:
        rolling = Rolling.model_validate(windows)
    except ValidationError as error:
        raise ValueError(f"{path}: rolling: {in_words(error, Rolling)}") from error
    entity, event_time = declared.get("entity"), declared.get("event_time", "event_time")
    if not isinstance(entity, list) or not all(isinstance(name, str) for name in entity):
        raise ValueError(f"{path}: entity: wanted a list of columns of {rolling.source}, found {entity!r}")
    compiled = {
        "columns": rolling.columns(),
        "sql": compiled_sql(rolling, tuple(entity), event_time),
        "rolling": rolling,
    }
    return {**declared, **compiled, "incremental": rolling.declaration() if rolling.incremental else None}


def streamed_windows(path: Path, windows: Any) -> Any:
    """Declare that events of a stream count from their arrival on, and not at all if they were too late.

    Raises
    ------
    ValueError
        If the windows declare it themselves.
    """
    if not isinstance(windows, dict):
        return windows  # refused where windows are validated
    if "arrived" in windows:
        raise ValueError(f"{path}: rolling.arrived: a view with `stream` knows when its events arrived; leave it out")
    condition = windows.get("filter")
    return {**windows, "arrived": ARRIVED, "filter": f"({condition}\n) AND {ON_TIME}" if condition else ON_TIME}


def _mapping(path: Path, text: str, what: str) -> dict[str, Any]:
    try:
        declared = yaml.load(text, Loader=LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {what} is not YAML: {error}") from error
    if not isinstance(declared, dict):
        raise ValueError(f"{path}: {what} must be a YAML mapping, found {type(declared).__name__}")
    return declared


def load_view(path: Path) -> FeatureView:
    """Read a view from its file.

    `<name>.sql` has YAML in a leading `/* … */` comment, then the query. `<name>.yaml` has the same keys, but `rolling`
    (see `ml_platform.features.rolling.spec`) instead of columns and query. `<name>.py` has a `view` made by
    `ml_platform.features.views.polars_view`.

    Raises
    ------
    ValueError
        If the file does not describe a view; the message names the file and what is wrong.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "daily_sales.sql"
    ...     _ = path.write_text('''/*
    ... description: Sales of a shop on the day before.
    ... owner: shops@example.com
    ... entity: [shop]
    ... ttl: 2 days
    ... columns:
    ...   revenue: {type: number, unit: EUR, description: Sum of the day's receipts.}
    ... */
    ... SELECT shop, day + INTERVAL 1 DAY AS event_time, revenue FROM raw.sales''')
    ...     view = load_view(path)
    >>> view.table, view.ttl
    ('features/daily_sales', datetime.timedelta(days=2))
    """
    if path.suffix == ".py":
        from ml_platform.features.views.polars_view import load_polars_view

        return load_polars_view(path)
    try:
        view = FeatureView.model_validate({"name": path.stem, **read_declaration(path)})
    except ValidationError as error:
        raise ValueError(f"{path}: {in_words(error, FeatureView)}") from error
    try:
        sql.referenced_tables(view.sql)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return view


def load_views(folder: Path) -> dict[str, FeatureView]:
    """Read every view of a folder, by name: from `*.sql`, `*.yaml` (not `defs.yaml`) and `*.py` (not `_*.py`).

    Raises
    ------
    ValueError
        If a file does not describe a view, or two files describe the same one.
    """
    candidates = [path for pattern in ("*.sql", "*.yaml", "*.py") for path in folder.glob(pattern)]
    paths = sorted(path for path in candidates if path.name != "defs.yaml" and not path.name.startswith("_"))
    views: dict[str, FeatureView] = {}
    for path in paths:
        view = load_view(path)
        if view.name in views:
            raise ValueError(f"{path}: another file in this folder already declares the view '{view.name}'")
        views[view.name] = view
    return views
