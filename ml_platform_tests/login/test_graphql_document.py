"""Bodies of GraphQL requests that could be read in more than one way."""

import json
from typing import Any

import pytest

from ml_platform.login.graphql_document import GraphQLRefused, read_document, read_request
from ml_platform.login.websocket import MessageRefused, judged

DELETE = "mutation { deleteRun(runId: 1) { __typename } }"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        json.dumps([{"query": "{ version }"}]).encode(),
        json.dumps({"query": ["{ version }"]}).encode(),
        json.dumps({"variables": {}}).encode(),
        json.dumps({"id": "1"}).encode(),
        json.dumps({"documentId": "1", "extensions": {"persistedQuery": {"sha256Hash": "0"}}}).encode(),
        json.dumps({"query": "{ version }", "extensions": {"persistedQuery": {"sha256Hash": "0"}}}).encode(),
        json.dumps({"query": "{ version }", "operationName": ["A"]}).encode(),
        json.dumps({"query": "{ version }", "variables": "{}"}).encode(),
        json.dumps({"query": "{ version }"}).encode("utf-16"),
        json.dumps({"query": "type A { b: Int }"}).encode(),
        json.dumps({"query": "{ version } type A { b: Int }"}).encode(),
        json.dumps({"query": "fragment A on Query { version }"}).encode(),
        json.dumps({"query": "{ ...Nowhere }"}).encode(),
        json.dumps({"query": "{ ...A } fragment A on Query { a } fragment A on Query { b }"}).encode(),
        json.dumps({"query": "{" * 10_000}).encode(),
        json.dumps({"query": "{ a " + "b " * 60_000 + "}"}).encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_not_one_document_is_refused(body):
    with pytest.raises(GraphQLRefused):
        read_request(body)


def test_what_was_judged_is_what_is_passed_on():
    twice = b'{"query": "' + DELETE.encode() + b'", "query": "{ version }", "more": 1}'
    request = read_request(twice)
    assert request.document.mutations == frozenset()
    assert json.loads(request.body) == {"query": "{ version }"}
    assert b"deleteRun" not in request.body


def test_fragments_that_spread_one_another_a_thousandfold_are_followed_once():
    """Each fragment spreads the next twice: followed each time that would be 2 ** 100 fields."""
    fragments = " ".join(f"fragment F{n} on Mutation {{ ...F{n + 1} ...F{n + 1} }}" for n in range(100))
    document = read_document(f"mutation {{ ...F0 }} {fragments} fragment F100 on Mutation {{ deleteRun }}")
    assert document.mutations == {"deleteRun"}


@pytest.mark.parametrize(
    "message",
    [
        "no json",
        "[]",
        json.dumps({"type": "start", "id": "1", "payload": {"query": DELETE}}),
        json.dumps({"type": "start", "id": "1", "payload": [{"query": DELETE}]}),
        json.dumps({"type": "start", "id": "1", "payload": {"query": f"subscription A {{ a }} {DELETE}"}}),
        json.dumps({"type": "subscribe", "id": "1", "payload": {"query": DELETE}}),
        json.dumps({"type": "Start", "id": "1", "payload": {"query": DELETE}}),
        json.dumps({"type": "execute", "payload": {"query": DELETE}}),
        json.dumps({"type": ["start"], "payload": {"query": DELETE}}),
        json.dumps({"id": {"a": 1}, "type": "stop"}),
    ],
)
def test_messages_of_a_websocket_that_are_no_subscription_are_refused(message):
    with pytest.raises(MessageRefused):
        judged(message)


def test_a_subscription_passes_as_dagsters_page_sends_it():
    sent: dict[str, Any] = {
        "type": "start",
        "id": "1",
        "payload": {
            "variables": {"runId": "1"},
            "extensions": {},
            "operationName": "Logs",
            "query": "subscription Logs($runId: ID!) { pipelineRunLogs(runId: $runId) { __typename } }",
        },
    }
    passed = json.loads(judged(json.dumps(sent)))
    assert passed["payload"] == {name: value for name, value in sent["payload"].items() if name != "extensions"}


def test_a_chain_of_fragments_of_any_length_is_followed_to_its_end():
    chain = " ".join(f"fragment F{n} on Mutation {{ ...F{n + 1} }}" for n in range(2000))
    assert read_document(f"mutation {{ ...F0 }} {chain} fragment F2000 on Mutation {{ deleteRun }}").mutations == {
        "deleteRun"
    }


@pytest.mark.parametrize("depth", [150, 900, 980, 100_000])
def test_variables_nested_too_deeply_are_refused(depth):
    body = '{"query": "{ a }", "variables": {"a": ' + "[" * depth + "]" * depth + "}}"
    with pytest.raises(GraphQLRefused):
        read_request(body.encode())
    with pytest.raises(MessageRefused):
        judged('{"type": "start", "id": "1", "payload": ' + body + "}")
