"""Finds the label under another name in a model's own SQL: as an input, or as a feature that is known too early.

Only what the text says for certain is found: the same expression, casts aside, in a query over one table. The search
for leaks in a training set (`ml_platform.features.training_sets.leakage`) judges the values of everything else.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query.sql import parse_tree, parser
from ml_platform.lake.query.time_travel_sql import table_of
from ml_platform.spec.model import ModelSpec
from ml_platform.yaml_documents import Document, SpecProblem

_PLACES = {"alias", "query_location", "query_location_length"}


@dataclass(frozen=True)
class _Query:
    """The columns of a SELECT from one table, as expressions that are equal if their meaning is."""

    table: str
    columns: Mapping[str, str]  # in lower case, without the columns of a *
    has_star: bool

    def expression(self, name: str) -> str | None:
        """What a column is made of; None if the query does not give it, or of no column of the table."""
        expression = self.columns.get(name.lower())
        if expression is None and self.has_star:
            return _text({"class": "COLUMN_REF", "column_names": [name]})
        return expression if expression is not None and "COLUMN_REF" in expression else None


def label_copies(
    document: Document, spec: ModelSpec, spine: str, views: Mapping[str, FeatureView]
) -> Iterator[SpecProblem]:
    """Inputs that are the target under another name, and look-ups that find a row's own label.

    A view may have the label of earlier rows: as a feature that is known from an instant after the prediction on, such
    as `label_available_at`. With the instant of prediction as its event time, the newest row would be the row itself.

    Parameters
    ----------
    document
        The model's YAML, for lines.
    spec
        The model.
    spine
        Its query, which parses.
    views
        Feature views by name.
    """
    with parser().cursor() as connection:
        own = _query(spine, connection)
        target = own.expression(spec.target) if own is not None else None
        if own is None or target is None:
            return
        for index, field in enumerate(spec.inputs):
            if field.name != spec.target and own.expression(field.name) == target:
                message = (
                    f"'{field.name}' of {spec.spine} is the target '{spec.target}' under another name, which no "
                    "request can know; leave it out"
                )
                yield document.problem(("attributes", "inputs", index, "name"), message)
        for index, lookup in enumerate(spec.lookups):
            view = views[lookup.view]
            if not view.sql or view.rolling or own.table not in view.source_tables:
                continue
            other = _query(view.sql, connection)
            if other is None or other.table != own.table:
                continue
            instant = own.expression(spec.timestamp)
            if instant is None or other.expression(view.event_time) != instant:
                continue
            for name in lookup.features or view.columns:
                if other.expression(name) == target:
                    message = (
                        f"'{name}' of {view.name} is the target '{spec.target}', known from the instant of prediction "
                        "on, so that each row would find its own label; let the view's event_time be the instant from "
                        f"which the label is known ('{spec.label_available_at}'), or take other features"
                    )
                    yield document.problem(("attributes", "lookups", index, "features"), message)


def _query(sql: str, connection: duckdb.DuckDBPyConnection) -> _Query | None:
    """Read a SELECT from one table; None for any other query."""
    node = parse_tree(sql, connection)["statements"][0]["node"]
    table = node.get("from_table") or {}
    if node["type"] != "SELECT_NODE" or table.get("type") != "BASE_TABLE" or not table.get("schema_name"):
        return None
    if node["cte_map"]["map"] or table.get("column_name_alias"):
        return None
    columns, has_star = {}, False
    for one in node["select_list"]:
        if one["class"] != "STAR":
            name = one["alias"] or (one["column_names"][-1] if one["class"] == "COLUMN_REF" else "")
            columns[name.lower()] = _text(one)
        elif one["type"] != "STAR" or one["expr"] or one["rename_list"]:
            return None
        else:
            has_star = True
            columns |= {item["key"].lower(): _text(item["value"]) for item in one["replace_list"]}
    return _Query(table_of(table), columns, has_star)


def _text(expression: Any) -> str:
    return json.dumps(_meaning(expression), sort_keys=True)


def _meaning(expression: Any) -> Any:
    """An expression without its casts, places and the names of the only table."""
    if isinstance(expression, list):
        return [_meaning(one) for one in expression]
    if not isinstance(expression, dict):
        return expression
    if expression.get("class") == "CAST":
        return _meaning(expression["child"])
    if expression.get("class") == "COLUMN_REF":
        return {"class": "COLUMN_REF", "column_names": [expression["column_names"][-1].lower()]}
    return {name: _meaning(value) for name, value in expression.items() if name not in _PLACES}
