"""The HTTP API, from the OpenAPI document of a server that has one small model released."""

import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from docs.generator.markdown import page, table
from ml_platform.serving.app import create_app
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import MODEL, VIEWS, fill_online_store, publish

METHODS = ("get", "post", "put", "delete")
COMMON = 10  # an answer that as many routes give in the same words is described once
Answer = tuple[str, str]  # status and meaning


async def _document(home: Path) -> dict[str, Any]:
    settings = Settings(home=home)
    fill_online_store(settings)
    publish(settings, 1)
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        answer = await client.get("http://127.0.0.1/openapi.json")
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document that a server with one released model serves."""
    with tempfile.TemporaryDirectory() as home:
        return asyncio.run(_document(Path(home)))


def template(path: str) -> str:
    """Return a path with the example's model and view replaced by parameters.

    Examples
    --------
    >>> template("/predict/flight_delay/versions/{version}")
    '/predict/{model}/versions/{version}'
    """
    path = re.sub(rf"/{MODEL}(?=/|$)", "/{model}", path)
    return re.sub(rf"/(?:{'|'.join(VIEWS)})(?=/|$)", "/{view}", path)


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield method, path and operation of every route, each path once."""
    seen = set()
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods and (method, template(path)) not in seen:
                seen.add((method, template(path)))
                yield method.upper(), template(path), methods[method]


def _general(text: str) -> str:
    """Return what holds for every model of an operation's summary or description."""
    return re.sub(rf"^Predict \w+ with {MODEL}", "Predict with a model", text).replace(MODEL, "a model").strip()


def _answers(operation: Mapping[str, Any]) -> list[Answer]:
    return sorted((status, answer["description"]) for status, answer in operation["responses"].items())


def common_answers(document: Mapping[str, Any]) -> set[Answer]:
    """Return the errors that many routes give in the same words."""
    counts = Counter(answer for *_, operation in operations(document) for answer in _answers(operation))
    return {answer for answer, count in counts.items() if count >= COMMON and answer[0] != "200"}


def _operation(method: str, path: str, operation: Mapping[str, Any], common: set[Answer]) -> Iterator[str]:
    yield f"### {method} {path}"
    yield _general(operation.get("summary", "")).rstrip(".") + "."
    if "{model}" not in path or not operation.get("requestBody"):
        yield operation.get("description", "")
    parameters = [
        [f"`{one['name']}`", one["in"], _kind(one.get("schema", {})), one.get("description", "")]
        for one in operation.get("parameters", ())
    ]
    yield table(["parameter", "in", "value", "meaning"], parameters)
    if body := operation.get("requestBody"):
        yield f"Body: {', '.join(f'`{kind}`' for kind in body['content'])}."
    answers = _answers(operation)
    yield _status_table(answer for answer in answers if answer not in common)
    if shared := [f"`{status}`" for status, meaning in answers if (status, meaning) in common]:
        yield f"Also {', '.join(shared)}, as [on every route](#answers-of-many-routes)."


def _status_table(answers: Iterable[Answer]) -> str:
    return table(["status", "meaning"], ([f"`{status}`", meaning] for status, meaning in answers))


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kinds = [kind for one in schema.get("anyOf", [schema]) for kind in _types(one)]
    return " or ".join(kind for kind in kinds if kind != "null")


def _types(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name.replace(MODEL, '&lt;model&gt;')} {{: #schema-{name.lower()} }}"
    yield schema.get("description", "")
    required = schema.get("required", ())
    rows = [
        [f"`{field}`", _field(about), "yes" if field in required else "", about.get("description", "")]
        for field, about in schema.get("properties", {}).items()
    ]
    yield table(["field", "value", "always", "meaning"], rows)


def _field(schema: Mapping[str, Any]) -> str:
    if reference := schema.get("$ref"):
        name = reference.rsplit("/", 1)[-1]
        return f"[{name.replace(MODEL, '&lt;model&gt;')}](#schema-{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(filter(None, (_field(one) for one in schema["anyOf"] if one.get("type") != "null")))
    if schema.get("type") == "array":
        return f"list of {_field(schema.get('items', {}))}".removesuffix(" of ")
    return _kind(schema)


def http_page() -> str:
    """Return the page of all routes."""
    document = openapi_document()
    common = common_answers(document)
    parts = []
    for tag in document["tags"]:
        parts += [f"## {tag['name']} {{: #tag-{tag['name'].lower().replace(' ', '-')} }}", tag["description"]]
        for method, path, operation in operations(document):
            if tag["name"] in operation.get("tags", ()):
                parts += _operation(method, path, operation, common)
    schemas = [
        part
        for name, schema in document["components"]["schemas"].items()
        if schema.get("properties") and not name.startswith(("HTTPValidation", "Validation"))
        for part in _schema(name, schema)
    ]
    return page(
        "HTTP API",
        """The server describes its routes at `/docs`, with the fields of the models that it serves now and a form to
try them; the document itself is at `/openapi.json`. This page is that document for any model. The console for people is
at `/` and `/models/<model>/console`. [Limits](limits.md) says when a request is refused, [control
access](../how-to/serving/access.md) which key a route needs.""",
        *parts,
        "## Answers of many routes",
        _status_table(sorted(common)),
        "## Objects",
        "Fields of rows are those of an example model; yours are at `/docs`.",
        *schemas,
    )
