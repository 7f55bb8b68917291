"""Reads the declaration of a feature view from its file: SQL after YAML in a comment, or YAML alone."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ml_platform.features.rolling import Rolling
from ml_platform.yaml_documents import explain

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
    return {**declared, "sql": match["sql"].strip().rstrip(";")}


def _declared_yaml(path: Path) -> dict[str, Any]:
    declared = _mapping(path, path.read_text(encoding="utf-8"), "the file")
    if surplus := sorted({"columns", "incremental", "sql"} & set(declared)):
        raise ValueError(f"{path}: {surplus} follow from `rolling`; write a .sql file to declare them by hand")
    try:
        rolling = Rolling.model_validate(declared.pop("rolling", {}))
    except ValidationError as error:
        raise ValueError(f"{path}: rolling: {in_words(error, Rolling)}") from error
    entity, event_time = declared.get("entity"), declared.get("event_time", "event_time")
    if not isinstance(entity, list) or not all(isinstance(name, str) for name in entity):
        raise ValueError(f"{path}: entity: wanted a list of columns of {rolling.source}, found {entity!r}")
    compiled = {"columns": rolling.columns(), "sql": rolling.sql(tuple(entity), event_time), "rolling": rolling}
    return {**declared, **compiled, "incremental": rolling.promise() if rolling.incremental else None}


def _mapping(path: Path, text: str, what: str) -> dict[str, Any]:
    try:
        declared = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {what} is not YAML: {error}") from error
    if not isinstance(declared, dict):
        raise ValueError(f"{path}: {what} must be a YAML mapping, found {type(declared).__name__}")
    return declared


def in_words(error: ValidationError, root: type[BaseModel]) -> str:
    """Explain each validation error, with its key."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'view'}: {explain(root, e)}" for e in error.errors())
