"""Translates endpoint documents into Databricks' terms, and its configs into changes of traffic."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from ml_platform.registry.manifest import Endpoint, Target
from ml_platform.registry.traffic import TrafficChange
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.models.slots import EndpointState


class ServedEntity(msgspec.Struct):
    """A version to serve, in either of the two spellings of the API."""

    name: str | None = None
    entity_name: str | None = None
    entity_version: str | None = None
    model_name: str | None = None
    model_version: str | None = None


class TrafficRoute(msgspec.Struct):
    """Share of one served entity, in per cent."""

    traffic_percentage: int
    served_model_name: str | None = None
    served_entity_name: str | None = None


class TrafficConfig(msgspec.Struct):
    """Shares of all served entities."""

    routes: list[TrafficRoute]


class Config(msgspec.Struct):
    """What an endpoint is to serve. Workload sizes and the like are ignored: there is nothing to choose here."""

    served_entities: list[ServedEntity] | None = None
    served_models: list[ServedEntity] | None = None
    traffic_config: TrafficConfig | None = None


class Creation(msgspec.Struct):
    """Body of a request that creates an endpoint."""

    name: str
    config: Config


def served_name(model: str, target: Target) -> str:
    """Name of a served entity, as Databricks calls a version."""
    return target.name or f"{model}-{target.version}"


def change_of(config: Config, current: Endpoint | None) -> TrafficChange:
    """Translate a config; one that names nothing asks for what serves already (raises Refused)."""
    if current and current.targets and config == Config():
        return TrafficChange(
            shares={target.version: target.share for target in current.targets if target.mode == "live"},
            shadows=[target.version for target in current.targets if target.mode == "shadow"],
            key=current.key,
            names={target.version: target.name for target in current.targets if target.name},
            model=current.model,
            expected_revision=current.revision,
        )
    model, names = _entities(config, current)
    percent = _percentages(config.traffic_config, names)
    return TrafficChange(
        shares={names[label]: share / 100 for label, share in percent.items() if share},
        shadows=[names[label] for label, share in percent.items() if not share],
        key=current.key if current else None,
        names={version: label for label, version in names.items() if label != f"{model}-{version}"},
        model=model,
        expected_revision=current.revision if current else 0,
    )


def _entities(config: Config, current: Endpoint | None) -> tuple[str, dict[str, int]]:
    """The model that a config serves, and its versions by served entity's name; the current ones when it names none."""
    entities = config.served_entities or config.served_models
    if entities is None:
        if current is None or not current.targets:
            raise _invalid("wanted served_entities")
        return current.model, {served_name(current.model, target): target.version for target in current.targets}
    names: dict[str, int] = {}
    models = set()
    for entity in entities:
        # Of Unity Catalog's catalog.schema.model the last part is the name in the registry here.
        model = (entity.entity_name or entity.model_name or "").rpartition(".")[2]
        version = entity.entity_version or entity.model_version or ""
        if not model or not (version.isascii() and version.isdigit() and len(version) < 10):
            raise _invalid("wanted entity_name, the model, and entity_version, a number, of each served entity")
        label = entity.name or f"{model}-{int(version)}"
        if label in names or int(version) in names.values():
            raise _invalid(f"the served entity '{label[:80]}' appears twice")
        names[label] = int(version)
        models.add(model)
    if len(models) != 1:
        raise _invalid(f"an endpoint serves versions of one model, found {', '.join(sorted(models)) or 'none'}")
    return models.pop(), names


def _percentages(traffic: TrafficConfig | None, names: Mapping[str, int]) -> dict[str, int]:
    """Share of each served entity in per cent; all to a single one when there are no routes."""
    if traffic is None:
        if len(names) > 1:
            raise _invalid("several served entities want traffic_config.routes")
        return dict.fromkeys(names, 100)
    percent = dict.fromkeys(names, 0)
    for route in traffic.routes:
        label = route.served_entity_name or route.served_model_name or ""
        if label not in names:
            raise _invalid(f"a route names '{label[:80]}'; served entities are {', '.join(names)}")
        percent[label] = route.traffic_percentage
    return percent


def _invalid(message: str) -> Refused:
    return Refused(422, "invalid_request", message)


def endpoint_of(
    name: str, document: Endpoint | None, first: Endpoint | None, slot: EndpointState | None
) -> dict[str, Any]:
    """Describe an endpoint in Databricks' terms, from its newest and its first document and its slot."""
    in_force = slot.endpoint.revision if slot and slot.endpoint else 0
    wanted = document.revision if document else 0
    update = "NOT_UPDATING" if in_force >= wanted else "IN_PROGRESS"
    if slot is not None and slot.refused is not None:
        update = "UPDATE_FAILED" if slot.refused.revision >= wanted else "IN_PROGRESS"
    ready = slot is not None and bool(slot.served)
    description: dict[str, Any] = {
        "name": name,
        "id": name,
        "state": {"ready": "READY" if ready else "NOT_READY", "config_update": update},
    }
    if document is None:
        return description
    targets = [(target, served_name(document.model, target)) for target in document.targets]
    made = first or document
    description |= {
        "creator": made.updated_by,
        "creation_timestamp": _milliseconds(made.updated_at),
        "last_updated_timestamp": _milliseconds(document.updated_at),
        "config": {
            "config_version": document.revision,
            "served_entities": [
                {
                    "name": label,
                    "entity_name": document.model,
                    "entity_version": str(target.version),
                    "state": {"deployment": _deployment(slot, target, update)},
                }
                for target, label in targets
            ],
            "traffic_config": {
                "routes": [
                    {"served_model_name": label, "traffic_percentage": round(100 * target.share)}
                    for target, label in targets
                ]
            },
        },
    }
    return description


def _milliseconds(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp() * 1000)


def _deployment(slot: EndpointState | None, target: Target, update: str) -> str:
    if slot is not None and slot.version(target.version):
        return "DEPLOYMENT_READY"
    return "DEPLOYMENT_CREATING" if update == "IN_PROGRESS" else "DEPLOYMENT_FAILED"
