"""What the operations of the other protocols share in the OpenAPI document."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_platform.serving.models.descriptions import described_version
from ml_platform.serving.models.slots import ServedModel, ServingState
from ml_platform.serving.openapi.predictions import REQUEST_ID, error_responses, json_content

TIMES = {
    "408": "The body did not arrive in time.",
    "413": "The body is larger than 16 MiB.",
    "503": "It cannot be answered now; the message says why, and Retry-After when to try again.",
}
STORE = {"503": "The release store cannot be read; Retry-After says when to try again."}


def served(state: ServingState) -> Iterator[tuple[str, ServedModel]]:
    """Each endpoint that answers, by name, with its main version, described by the inputs of all."""
    for name, slot in sorted(state.slots.items()):
        if (main := described_version(slot)) is not None:
            yield name, main


def example_version(state: ServingState) -> tuple[str, int]:
    """A model and a version of it that serves, for examples."""
    return next(((model.name, model.version) for _, model in served(state)), ("my_model", 1))


class Protocol(NamedTuple):
    """A group of operations in the document, whose errors have the same shape."""

    tag: str
    shape: str

    def operation(
        self,
        identity: str,
        summary: str,
        answer: Mapping[str, Any] | None,
        errors: Mapping[str, str],
        *,
        about: str = "",
        parameters: Sequence[Mapping[str, Any]] = (),
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Describe one method of a path: the schema of its answer (None for text), and its errors by status."""
        answered: dict[str, Any] = {"description": "Done."}
        if answer is not None:
            answered["content"] = {"application/json": {"schema": answer}}
        operation: dict[str, Any] = {
            "tags": [self.tag],
            "summary": summary,
            "operationId": identity,
            "description": about,
            "parameters": [*parameters, *([] if body is None else [REQUEST_ID])],
            "requestBody": body,
            "responses": {"200": answered, **error_responses(errors, self.shape)},
        }
        return {name: part for name, part in operation.items() if part}


def json_body(schema: str, example: Any) -> dict[str, Any]:
    """A body that a schema among the document's components describes."""
    [(kind, content)] = json_content(schema).items()
    return {"required": True, "content": {kind: {**content, "example": example}}}


def in_path(name: str, about: str, **schema: Any) -> dict[str, Any]:
    """A parameter in the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": about,
        "schema": {"type": "string", **schema},
    }


def called(state: ServingState) -> dict[str, Any]:
    """The parameter `model`, with the models that there are."""
    return in_path("model", "Name of a model.", **({"examples": names} if (names := state.names()) else {}))
