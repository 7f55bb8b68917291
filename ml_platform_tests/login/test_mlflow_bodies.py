"""Where MLflow's server would write or read for somebody who is no admin, in every spelling."""

import json

import pytest

from ml_platform.login.mlflow_bodies import BodyRefused, PlaceRefused, checked, is_read


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "x", "artifact_location": "/etc"}',
        b'{"name": "x", "artifactLocation": "file:///etc"}',
        b'{"name": "x", "artifact_location": "", "artifact\\u004cocation": "s3://bucket"}',
        b'{"name": "x", "artifact_location": "/etc", "artifact_location": "/srv"}',
        b'{"name": "x", "artifact_location": ["/etc"]}',
        json.dumps(json.dumps({"name": "x", "artifact_location": "/etc"})).encode(),
        json.dumps({"name": "x", "artifact_location": "/etc"}).encode("utf-16"),
        b'{"name": "m", "source": "s3://bucket/model"}',
        b'{"name": "m", "source": "http://127.0.0.1:9/x"}',
        b'{"name": "m", "source": " s3://bucket"}',
        b'{"name": "m", "source": "file://elsewhere/etc"}',
        b'{"key": "mlflow.artifactLocation", "value": "/etc"}',
        b'{"trace": {"trace_info": {"tags": {"mlflow.artifactLocation": "/etc"}}}}',
        b'{"tags": [{"key": "mlflow.trace.archiveLocation", "value": "/etc"}]}',
    ],
)
def test_no_spelling_of_a_place_passes(body):
    with pytest.raises(PlaceRefused):
        checked(body)


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 990 + b"1" + b"}" * 990, b'"x"'])
def test_what_is_no_object_of_json_is_refused(body):
    with pytest.raises(BodyRefused):
        checked(body)


@pytest.mark.parametrize(
    "content",
    [
        {"name": "x"},
        {"name": "x", "artifact_location": ""},
        {"name": "m", "source": "models:/m-1", "model_id": "m-1"},
        {"name": "m", "source": "runs:/1/model", "run_id": "1"},
        {"name": "m", "source": "home-artifacts:/x/1/artifacts/model", "run_id": "1"},
        {"name": "p", "source": "dummy-source", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]},
    ],
)
def test_what_clients_send_passes_as_it_is(content):
    assert json.loads(checked(json.dumps(content).encode())) == content


def test_a_request_without_a_body_gets_an_empty_object():
    assert checked(b" ") == b"{}"


@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_the_bodies_of_all_routes_with_a_place_are_read(api):
    for path in (
        "2.0/mlflow/experiments/create", "2.0/mlflow/model-versions/create", "3.0/mlflow/traces",
        "2.0/mlflow/traces/t/tags", "2.0/mlflow/logged-models",
    ):  # fmt: skip
        assert is_read("PATCH" if path.endswith("tags") else "POST", f"/{api}/{path}")
    assert not is_read("GET", f"/{api}/2.0/mlflow/experiments/create")


def test_every_field_of_mlflow_that_says_a_place_is_known():
    """A version of MLflow with another one needs a look: refuse it, or let its route take an admin."""
    from mlflow.protos import model_registry_pb2, service_pb2

    places = {
        f"{name}.{field.name}"
        for module in (service_pb2, model_registry_pb2)
        for name, message in module.DESCRIPTOR.message_types_by_name.items()
        if "Response" in {nested.name for nested in message.nested_types}
        for field in message.fields
        if field.name == "source" or field.name.endswith(("_location", "_uri", "_root", "_url"))
    }
    assert places == {
        "CreateExperiment.artifact_location",
        "CreateModelVersion.source",
        "CreateDataset.source",  # a description, which no server opens
        "CreatePromptOptimizationJob.source_prompt_uri",  # admin
        "CreateWorkspace.default_artifact_root",  # admin
        "UpdateWorkspace.default_artifact_root",
    }
