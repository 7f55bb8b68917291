"""YAML with the line of every key, so that a mistake is reported with its place, what is allowed and what was meant."""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it
Spec = TypeVar("Spec", bound=BaseModel)


@dataclass(frozen=True)
class SpecProblem:
    """One mistake, where it stands."""

    path: Path
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """Render as `file:line: key: message`, which editors and terminals make clickable."""
        return f"{self.path}:{self.line}: {self.key}: {self.message}"


class SpecError(ValueError):
    """A YAML file cannot be used; `problems` lists every mistake found."""

    def __init__(self, problems: list[SpecProblem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class Document:
    """A YAML document with the line of every key; `data` is what it holds."""

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

    @property
    def component(self) -> str:
        """Name of the component it declares, without its module; empty when it declares none."""
        return str(self.data.get("type", "")).rpartition(".")[2] if isinstance(self.data, dict) else ""

    def validate(self, model: type[Spec]) -> Spec:
        """Make what the document's `attributes` describe.

        Raises
        ------
        SpecError
            With every mistake, at its line.
        """
        try:
            return model.model_validate(self.data.get("attributes") or {})
        except ValidationError as error:
            problems = [
                self._problem_of_a_part(("attributes", *without_tags(model, e["loc"])), message)
                for e in error.errors()
                for message in explain(model, e).split("\n")
            ]
            raise SpecError(problems) from None

    def _problem_of_a_part(self, location: Location, message: str) -> SpecProblem:
        """Place a message that begins with a key, as `promotion.metric: …`, at that key where it is written."""
        head, colon, rest = message.partition(": ")
        part: Location = (*location, *(int(name) if name.isdigit() else name for name in head.split(".")))
        return self.problem(part, rest) if colon and part in self._lines else self.problem(location, message)

    def problem(self, location: Location, message: str) -> SpecProblem:
        """Place a message at a key, or at the nearest enclosing one that is written down."""
        written = location
        while written and written not in self._lines:
            written = written[:-1]
        key = ".".join(str(part) for part in location[1:] or location) or "attributes"
        return SpecProblem(self.path, self._lines.get(written, 1), key, message)


def _construct(path: Path, node: yaml.Node) -> Any:
    """Build plain values, refusing duplicate keys, which YAML parsers otherwise drop without a word."""
    duplicates: list[SpecProblem] = []

    def walk(part: yaml.Node) -> None:
        if isinstance(part, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in part.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    message = f"stands twice, first on line {seen[key.value]}; keep one of the two"
                    duplicates.append(SpecProblem(path, line, str(key.value), message))
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


_NEAR = 0.55  # from here on; less is alike by chance, as 'heavy' and 'flight_delay'


def nearest(word: str, allowed: Collection[str]) -> str:
    """Say which of the allowed words was probably meant, after a sentence that named another."""
    close = get_close_matches(word, list(allowed), n=1, cutoff=_NEAR)
    return f"; did you mean '{close[0]}'?" if close else "."


def unknown(word: str, allowed: Collection[str], *, what: str) -> str:
    """Say that a name is not known, which ones are, and which was probably meant."""
    return f"unknown {what} '{word}'{nearest(word, allowed)} Allowed: {', '.join(sorted(allowed)) or 'none'}"


def without_tags(root: type[BaseModel], location: Location) -> Location:
    """Leave out of a location what pydantic adds where a key holds one of several models: that model's `type`."""
    written: list[str | int] = []
    current: Any = root
    for part in location:
        current = _inner(current)
        if (chosen := _tagged(current, part)) is not None:
            current = chosen
            continue
        written.append(part)
        current = _below(current, part)
    return tuple(written)


def _below(annotation: Any, part: str | int) -> Any:
    """The annotation of a part of a value."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if isinstance(part, str) and _is_model(annotation) and part in annotation.model_fields:
        return annotation.model_fields[part].annotation
    return annotation if isinstance(part, int) else None


def _tagged(annotation: Any, part: str | int) -> type[BaseModel] | None:
    """The model among several whose `type` a part of a location is."""
    for model in _alternatives(annotation):
        if "type" in model.model_fields and part in get_args(model.model_fields["type"].annotation):
            return model
    return None


def _alternatives(annotation: Any) -> list[type[BaseModel]]:
    """The models of a union of models; none of any other annotation."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is not Union and type(annotation).__name__ != "UnionType":
        return []
    plain = [get_args(one)[0] if get_origin(one) is Annotated else one for one in get_args(annotation)]
    return plain if len(plain) > 1 and all(map(_is_model, plain)) else []


def _model_at(root: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """Find the model class that a location inside a spec belongs to."""
    current: Any = root
    for part in location:
        current = _inner(current)
        if (chosen := _tagged(current, part)) is not None:
            current = chosen
            continue
        if get_origin(current) is dict:
            current = get_args(current)[1]
        elif isinstance(part, str):
            if not _is_model(current) or part not in current.model_fields:
                return None
            current = current.model_fields[part].annotation
    current = _inner(current)
    return current if _is_model(current) else None


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _inner(annotation: Any) -> Any:
    """Unwrap `tuple[X, ...]` and `X | None` to X."""
    while not _alternatives(annotation) and (
        get_origin(annotation) in (tuple, list, Union) or type(annotation).__name__ == "UnionType"
    ):
        annotation = next(arg for arg in get_args(annotation) if arg not in (Ellipsis, type(None)))
    return annotation


def explain(root: type[BaseModel], error: ErrorDetails) -> str:
    """Say in words what is wrong with a value of a model, what was wanted, and what was probably meant."""
    location = tuple(error["loc"])
    match error["type"]:
        case "extra_forbidden":
            model = _model_at(root, location[:-1])
            return unknown(str(location[-1]), model.model_fields if model else (), what="key")
        case "missing":
            model = _model_at(root, location[:-1])
            field = model.model_fields.get(str(location[-1])) if model else None
            meaning = f" ({field.description})" if field and field.description else ""
            return f"is missing and has no default{meaning}; add it"
        case "literal_error" | "union_tag_invalid":
            context = error["ctx"]
            word, expected = context.get("tag", error["input"]), context.get("expected_tags") or context["expected"]
            return unknown(str(word), _words(expected), what="type" if "tag" in context else "value")
        case "tuple_type":
            return f"a list was wanted, e.g. [{error['input']}]; found {error['input']!r}"
        case "value_error":
            return str(error["ctx"]["error"])
        case _:
            return f"{error['msg']}; found {error['input']!r}"


def _words(expected: str) -> list[str]:
    return [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]


def documents(path: Path) -> list[Document]:
    """Read the documents of a file.

    Raises
    ------
    SpecError
        If it is no YAML, or a key stands twice.
    """
    try:
        nodes = [node for node in yaml.compose_all(path.read_text(encoding="utf-8"), Loader=LOADER) if node]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError(
            [SpecProblem(path, line, "YAML", f"{problem}; check the indentation and quotes here")]
        ) from error
    return [Document(path, node) for node in nodes]


def in_words(error: ValidationError, root: type[BaseModel]) -> str:
    """Explain each validation error, with its key."""
    return "; ".join(
        f"{'.'.join(map(str, without_tags(root, e['loc']))) or 'view'}: {explain(root, e)}" for e in error.errors()
    )
