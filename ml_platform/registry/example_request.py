"""A request that a released model answers, made of a real row of its bundle."""

import json
import shlex
from typing import Any

import msgspec

from ml_platform.registry.manifest import Golden, champion_target
from ml_platform.registry.releases import ReleaseStore


def example_request(store: ReleaseStore, model: str) -> dict[str, Any]:
    """Give the inputs of a row that the model which serves was tried on; those that may be left out only if known.

    Raises
    ------
    LookupError
        When nothing of this name serves, or its bundle is not there.
    """
    endpoint = store.endpoint(model)
    if endpoint is None:
        raise LookupError(f"nothing of '{model}' serves; there are {', '.join(store.endpoints()) or 'none'}")
    digest = champion_target(endpoint).digest
    manifest = store.load_manifest(digest)
    golden = msgspec.json.decode(store.read_bundle(digest)["golden.json"], type=Golden)
    row = golden.inputs[0]
    return {
        field.name: row.get(field.name)
        for field in manifest.inputs
        if field.required or (row.get(field.name) is not None and field.name != manifest.as_of)
    }


def curl_line(url: str, model: str, row: dict[str, Any], *, with_key: bool = False) -> str:
    """Write the command that asks for a prediction.

    Parameters
    ----------
    url
        Of the server.
    model
        Name of the model.
    row
        The request's inputs.
    with_key
        Whether the server wants an API key, which is taken from `$KEY`.

    Examples
    --------
    >>> print(curl_line("http://127.0.0.1:8000", "churn", {"plan": "it's new"}))
    curl -s http://127.0.0.1:8000/predict/churn -H 'Content-Type: application/json' -d '{"plan": "it'"'"'s new"}'
    """
    body = shlex.quote(json.dumps(row, ensure_ascii=False))
    key = """ -H "Authorization: Bearer $KEY\"""" if with_key else ""
    return f"curl -s {url}/predict/{model} -H 'Content-Type: application/json'{key} -d {body}"
