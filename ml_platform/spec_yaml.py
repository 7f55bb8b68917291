"""Reads a model's `defs.yaml` and says of every mistake the file, line, key, what is allowed and what was meant."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ml_platform.spec import ModelSpec

COMPONENT = "TabularModel"
Location = tuple[str | int, ...]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it


@dataclass(frozen=True)
class Problem:
    """One mistake, where it stands."""

    path: Path
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """Render as `file:line: key: message`, which editors and terminals make clickable."""
        return f"{self.path}:{self.line}: {self.key}: {self.message}"


class SpecError(ValueError):
    """A model's YAML cannot be used; `problems` lists every mistake found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class _Document:
    """A YAML document with the line of every key."""

    def __init__(self, path: Path, node: yaml.Node) -> None:
        self.path = path
        self.data: Any = _construct(path, node)
        self._lines: dict[Location, int] = {}
        self._index(node, ())

    def _index(self, node: yaml.Node, location: Location) -> None:
        self._lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self._lines[(*location, key.value)] = key.start_mark.line + 1
                self._index(value, (*location, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._index(item, (*location, index))

    def problem(self, location: Location, message: str) -> Problem:
        """Place a message at a key, or at the nearest enclosing one that is written down."""
        written = location
        while written and written not in self._lines:
            written = written[:-1]
        key = ".".join(str(part) for part in location[1:]) or "attributes"
        return Problem(self.path, self._lines.get(written, 1), key, message)


def _construct(path: Path, node: yaml.Node) -> Any:
    """Build plain values, refusing duplicate keys, which YAML parsers otherwise drop without a word."""
    duplicates: list[Problem] = []

    def walk(part: yaml.Node) -> None:
        if isinstance(part, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in part.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    message = f"stands twice, first on line {seen[key.value]}; keep one of the two"
                    duplicates.append(Problem(path, line, str(key.value), message))
                seen.setdefault(key.value, line)
                walk(value)
        elif isinstance(part, yaml.SequenceNode):
            for item in part.value:
                walk(item)

    walk(node)
    if duplicates:
        raise SpecError(duplicates)
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _nearest(word: str, allowed: Collection[str]) -> str:
    close = get_close_matches(word, list(allowed), n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else "."


def unknown(word: str, allowed: Collection[str], *, what: str) -> str:
    """Say that a name is not known, which ones are, and which was probably meant."""
    return f"unknown {what} '{word}'{_nearest(word, allowed)} Allowed: {', '.join(sorted(allowed)) or 'none'}"


def _model_at(location: Location) -> type[BaseModel] | None:
    """Find the model class that a location inside the spec belongs to."""
    current: Any = ModelSpec
    for part in location:
        if isinstance(part, int):
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or part not in current.model_fields:
            return None
        current = _inner(current.model_fields[part].annotation)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _inner(annotation: Any) -> Any:
    """Unwrap `tuple[X, ...]` and `X | None` to X."""
    while get_origin(annotation) in (tuple, list, Union) or type(annotation).__name__ == "UnionType":
        annotation = next(arg for arg in get_args(annotation) if arg not in (Ellipsis, type(None)))
    return annotation


def _explain(error: ErrorDetails) -> str:
    location = tuple(error["loc"])
    match error["type"]:
        case "extra_forbidden":
            model = _model_at(location[:-1])
            return unknown(str(location[-1]), model.model_fields if model else (), what="key")
        case "missing":
            model = _model_at(location[:-1])
            field = model.model_fields.get(str(location[-1])) if model else None
            meaning = f" ({field.description})" if field and field.description else ""
            return f"is missing and has no default{meaning}; add it"
        case "literal_error":
            expected = error["ctx"]["expected"]
            allowed = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
            return unknown(str(error["input"]), allowed, what="value")
        case "value_error":
            return str(error["ctx"]["error"])
        case _:
            return f"{error['msg']}; found {error['input']!r}"


def _documents(path: Path) -> list[_Document]:
    try:
        nodes = [node for node in yaml.compose_all(path.read_text(encoding="utf-8"), Loader=LOADER) if node]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError([Problem(path, line, "YAML", f"{problem}; check the indentation and quotes here")]) from error
    return [_Document(path, node) for node in nodes]


def load_spec(path: Path, views: Mapping[str, Collection[str]] | None = None) -> ModelSpec:
    """Read the model that `path` declares.

    Parameters
    ----------
    path
        A `defs.yaml` whose `type` ends in `TabularModel`.
    views
        Known feature views and the names of their features; look-ups are checked against them when given.

    Raises
    ------
    SpecError
        With every mistake found: unknown or duplicate keys, wrong values, files, views or features that do not exist.
    """
    documents = [d for d in _documents(path) if isinstance(d.data, dict) and is_model(d.data)]
    if len(documents) != 1:
        message = f"one document of type …{COMPONENT} wanted, {len(documents)} found"
        raise SpecError([Problem(path, 1, "type", message)])
    document = documents[0]
    try:
        spec = ModelSpec.model_validate(document.data.get("attributes") or {})
    except ValidationError as error:
        problems = [document.problem(("attributes", *e["loc"]), _explain(e)) for e in error.errors()]
        raise SpecError(problems) from None
    if problems := list(_dangling(document, spec, views)):
        raise SpecError(problems)
    return spec


def is_model(data: Mapping[str, Any]) -> bool:
    """Tell whether a YAML document declares a model."""
    return str(data.get("type", "")).rpartition(".")[2] == COMPONENT


def _dangling(document: _Document, spec: ModelSpec, views: Mapping[str, Collection[str]] | None) -> list[Problem]:
    """List references to files, views and features that are not there."""
    problems = []
    for key, name in (("spine", spec.spine), ("request_features", spec.request_features)):
        if name and not (document.path.parent / name).is_file():
            here = sorted(p.name for p in document.path.parent.iterdir() if p.suffix in {".sql", ".py"})
            message = (
                f"no file '{name}' beside defs.yaml{_nearest(name, here)} Found there: {', '.join(here) or 'none'}"
            )
            problems.append(document.problem(("attributes", key), message))
    for index, lookup in enumerate(spec.lookups if views is not None else ()):
        location: Location = ("attributes", "lookups", index)
        known = (views or {}).get(lookup.view)
        if known is None:
            message = unknown(lookup.view, views or {}, what="feature view")
            problems.append(document.problem((*location, "view"), message))
            continue
        problems += [
            document.problem((*location, "features"), unknown(name, known, what=f"feature of {lookup.view}"))
            for name in lookup.features
            if name not in known
        ]
    return problems


def check_models(defs: Path, views: Mapping[str, Collection[str]]) -> dict[Path, ModelSpec]:
    """Read every model below a folder, so that one load reports the mistakes of all files.

    Raises
    ------
    SpecError
        With the mistakes of all files together.
    """
    specs: dict[Path, ModelSpec] = {}
    problems: list[Problem] = []
    for path in sorted(defs.rglob("defs.yaml")):
        try:
            if any(isinstance(d.data, dict) and is_model(d.data) for d in _documents(path)):
                specs[path] = load_spec(path, views)
        except SpecError as error:
            problems += error.problems
    names: dict[str, Path] = {}
    for path, spec in specs.items():
        if spec.name in names:
            message = f"'{spec.name}' is already the model of {names[spec.name]}; choose another name"
            problems.append(Problem(path, 1, "name", message))
        names.setdefault(spec.name, path)
    if problems:
        raise SpecError(problems)
    return specs
