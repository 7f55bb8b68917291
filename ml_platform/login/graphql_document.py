"""What a GraphQL request does: each document is parsed, and whatever could run of it counts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
)

LARGEST = 8 * 2**20  # bytes of a request
_MOST_TOKENS = 50_000
_DEEPEST = 100  # variables within one another
_CACHED = 256
_LONGEST_CACHED = 65_536
_MEMBERS = frozenset({"query", "variables", "operationName"})


class GraphQLRefused(ValueError):
    """A GraphQL request that is not judged, and so not passed on."""


@dataclass(frozen=True)
class Document:
    """What a document may do.

    Attributes
    ----------
    mutations, subscriptions, queries
        Fields at the root of its operations, of all of them: by their names, whatever their aliases, and through
        fragments.
    """

    mutations: frozenset[str]
    subscriptions: frozenset[str]
    queries: frozenset[str]


@dataclass(frozen=True)
class GraphQLRequest:
    """A request that was read.

    Attributes
    ----------
    body
        It, written anew: what was judged is what is passed on, whatever duplicate members or encodings there were.
    """

    document: Document
    body: bytes
    variables: dict[str, Any] | None = None


def read_request(body: bytes) -> GraphQLRequest:
    """Read the JSON body of a GraphQL request.

    Raises
    ------
    GraphQLRefused
        For batches, documents that are named instead of sent, and what is no GraphQL.

    Examples
    --------
    >>> body = b'{"query": "mutation { harmless: deleteRun(runId: 1) { __typename } }"}'
    >>> sorted(read_request(body).document.mutations)
    ['deleteRun']
    """
    try:
        content = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise GraphQLRefused(f"the body is not JSON: {error or 'nested too deeply'}") from None
    if isinstance(content, list):
        raise GraphQLRefused("batches of requests are not accepted: send one at a time")
    return request_of(content)


def request_of(content: Any) -> GraphQLRequest:
    """Read a GraphQL request from its JSON members (raises GraphQLRefused)."""
    if not isinstance(content, dict) or not isinstance(content.get("query"), str):
        raise GraphQLRefused("wanted an object with the document in `query`")
    if content.get("extensions"):
        raise GraphQLRefused("`extensions`, such as ids of persisted documents, are not accepted")
    kept = {name: value for name, value in content.items() if name in _MEMBERS}
    if not isinstance(kept.get("operationName"), str | None) or not isinstance(kept.get("variables"), dict | None):
        raise GraphQLRefused("wanted a text as `operationName` and an object as `variables`")
    if _is_deeper(kept, _DEEPEST):
        raise GraphQLRefused(f"`variables` may be nested {_DEEPEST} deep")
    query = content["query"]
    document = (_cached if len(query) <= _LONGEST_CACHED else read_document)(query)
    return GraphQLRequest(document, json.dumps(kept).encode(), kept.get("variables"))


def read_document(text: str) -> Document:
    """What a document may do (raises GraphQLRefused)."""
    try:
        parsed = parse(text, no_location=True, max_tokens=_MOST_TOKENS)
    except (GraphQLError, RecursionError) as error:
        reason = error.message if isinstance(error, GraphQLError) else "nested too deeply"
        raise GraphQLRefused(f"the document is no GraphQL: {reason}") from None
    roots: dict[str, set[str]] = {"query": set(), "mutation": set(), "subscription": set()}
    fragments = _fragments(parsed)
    for definition in parsed.definitions:
        if isinstance(definition, OperationDefinitionNode):
            roots[definition.operation.value].update(_fields(definition.selection_set, fragments))
        elif not isinstance(definition, FragmentDefinitionNode):
            raise GraphQLRefused("wanted operations and fragments alone in the document")
    if not any(roots.values()):
        raise GraphQLRefused("the document has no operation")
    return Document(frozenset(roots["mutation"]), frozenset(roots["subscription"]), frozenset(roots["query"]))


_cached = lru_cache(_CACHED)(read_document)


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    found: dict[str, FragmentDefinitionNode] = {}
    for definition in document.definitions:
        if isinstance(definition, FragmentDefinitionNode):
            if definition.name.value in found:
                raise GraphQLRefused(f"the fragment {definition.name.value} is defined twice")
            found[definition.name.value] = definition
    return found


def _fields(selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode]) -> Iterator[str]:
    """Names of the fields of a selection, through fragments, each followed once, however long a chain they make."""
    waiting, seen = [selections], set[str]()
    while waiting:
        for selection in waiting.pop().selections:
            if isinstance(selection, FieldNode):
                yield selection.name.value
            elif isinstance(selection, InlineFragmentNode):
                waiting.append(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                if name not in fragments:
                    raise GraphQLRefused(f"there is no fragment {name} in the document")
                if name not in seen:
                    seen.add(name)
                    waiting.append(fragments[name].selection_set)


def _is_deeper(content: Any, most: int) -> bool:
    """Whether JSON is nested more than so many deep."""
    level = [content]
    for _ in range(most + 1):
        level = [
            member
            for value in level
            if isinstance(value, dict | list)
            for member in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True
