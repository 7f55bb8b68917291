"""Features derived from the request: Polars expressions in a user's file, the same objects offline and online."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ml_platform.features.expressions.compile import compile_tree, evaluator, same
from ml_platform.features.views.declared_types import DTYPES
from ml_platform.python_files import load_file
from ml_platform.spec.input_rules import FieldType
from ml_platform.spec.inputs import InputField

_TYPES: dict[type[pl.DataType], FieldType] = {pl.String: "string", pl.Boolean: "boolean", pl.Datetime: "timestamp"}


@dataclass(frozen=True)
class RequestFeature:
    """A feature computed from the inputs and from the request features declared before it."""

    expression: pl.Expr
    description: str = ""
    unit: str | None = None


def load_request_features(path: Path) -> dict[str, RequestFeature]:
    """Read `REQUEST_FEATURES` from a Python file, in the order of its declaration.

    Raises
    ------
    ValueError
        If the file has no such mapping, or an expression cannot be evaluated online
        (see `ml_platform.features.expressions.compile`).
    """
    if not path.exists():
        raise ValueError(f"request_features: no Python file at {path}")
    module = load_file(path, "ml_platform_request_features")
    features = getattr(module, "REQUEST_FEATURES", None)
    if not isinstance(features, dict) or not all(isinstance(value, RequestFeature) for value in features.values()):
        raise ValueError(
            f"{path}: wanted `REQUEST_FEATURES: dict[str, RequestFeature]`, found {type(features).__name__}"
        )
    for feature, declared in features.items():
        try:
            compile_tree(declared.expression)
        except ValueError as error:
            raise ValueError(f"{path}: request feature '{feature}': {error}") from error
    return features


def add_request_features(frame: pl.LazyFrame, features: Mapping[str, RequestFeature]) -> pl.LazyFrame:
    """Compute request features one after the other, so that each may use those before it.

    Examples
    --------
    >>> distance = RequestFeature(pl.col("miles") * 1.609, "Great-circle distance.", "km")
    >>> add_request_features(pl.LazyFrame({"miles": [100.0]}), {"km": distance}).collect().to_dicts()
    [{'miles': 100.0, 'km': 160.9}]
    """
    for name, feature in features.items():
        frame = frame.with_columns(feature.expression.alias(name))
    return frame


def derived_types(inputs: tuple[InputField, ...], features: Mapping[str, RequestFeature]) -> dict[str, FieldType]:
    """Type of each request feature, from the types of the inputs."""
    empty = pl.LazyFrame(schema={field.name: DTYPES[field.type] for field in inputs})
    schema = add_request_features(empty, features).collect_schema()
    return {name: _field_type(name, schema[name]) for name in features}


def _field_type(name: str, dtype: pl.DataType) -> FieldType:
    if dtype.base_type() in _TYPES:
        return _TYPES[dtype.base_type()]
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "number"
    raise ValueError(
        f"request feature '{name}' is of type {dtype}; cast it to a number, integer, boolean, string or time"
    )


def check_request_feature_parity(
    frame: pl.DataFrame, inputs: tuple[InputField, ...], features: Mapping[str, RequestFeature]
) -> None:
    """Compute the request features of some rows both by Polars and in plain Python, and refuse any difference.

    Polars computes in typed columns, serving in plain Python: they can differ by an 8-bit overflow or an unusual cast.

    Raises
    ------
    ValueError
        If they differ; the message names the feature, the row's inputs, and both values.
    """
    names = [field.name for field in inputs]
    rows = frame.select(names).to_dicts()
    expected = add_request_features(frame.lazy().select(names), features).collect()
    for name, feature in features.items():
        evaluate = evaluator(compile_tree(feature.expression))
        for row, offline in zip(rows, expected.get_column(name).to_list(), strict=True):
            row[name] = evaluate(row)
            if not same(row[name], offline):
                used = {column: row[column] for column in feature.expression.meta.root_names()}
                raise ValueError(
                    f"request feature '{name}' differs: {offline!r} by Polars, {row[name]!r} online, for {used}. "
                    "Cast to Int64 or Float64 before arithmetic: dt.hour() and its like are 8-bit integers"
                )
