"""Every setting with its present value, and where that comes from."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from ml_platform.environments import (
    FILE,
    PREFIX,
    Environment,
    EnvironmentSettings,
    current_environment,
    without_passwords,
)
from ml_platform.environments import VARIABLE as ENVIRONMENT
from ml_platform.lineage.openlineage_transport import OpenLineageSettings
from ml_platform.login.settings import LoginSettings
from ml_platform.monitoring.alerts.alert import AlertSettings
from ml_platform.processes.platform import PORTS, port_variable, ports
from ml_platform.project import VARIABLE as PROJECT
from ml_platform.project import current_project
from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings

KINDS: tuple[type[EnvironmentSettings], ...] = (
    Settings,
    ServingSettings,
    AlertSettings,
    LoginSettings,
    OpenLineageSettings,
)


@dataclass(frozen=True)
class EffectiveSetting:
    """One setting as it is in force.

    Attributes
    ----------
    variable
        The environment variable that sets it.
    value
        What is in force, as text; a secret as `…`.
    origin
        `variable`, `environments.yaml:<line>` or `default`.
    """

    variable: str
    value: str
    origin: str


def effective_settings() -> list[EffectiveSetting]:
    """Return all settings of this process's environment.

    Raises
    ------
    ValueError
        When one cannot be used.
    """
    environment = current_environment()
    where = "variable" if os.environ.get(ENVIRONMENT) else f"the first of {FILE}" if environment else "default"
    effective = [
        EffectiveSetting(PROJECT, str(current_project().root), "variable" if os.environ.get(PROJECT) else "found"),
        EffectiveSetting(ENVIRONMENT, environment.name if environment else "none", where),
    ]
    for kind in KINDS:
        effective += _of(kind, environment)
    for name, port in ports().items():
        origin = _origin(port_variable(name), environment, "ports", name, set_variables())
        effective.append(EffectiveSetting(port_variable(name), str(port), origin))
    return effective


def set_variables() -> set[str]:
    """Return the names of this process's environment variables, in capitals, as settings take them."""
    return {name.upper() for name in os.environ}


def overridden(environment: Environment) -> dict[str, int]:
    """Return the variables that win over keys of an environment in the file, and the lines of these."""
    groups: Mapping[str, Any] = {**{kind.group(): kind.model_fields for kind in KINDS}, "ports": PORTS}
    variables = set_variables()
    sources = {}
    for group in groups:
        for key in environment.keys(group):
            variable = (
                port_variable(key) if group == "ports" else f"{PREFIX}{f'{group}_' if group else ''}{key}".upper()
            )
            if variable in variables:
                sources[variable] = environment.line(group, key)
    return sources


def _of(kind: type[EnvironmentSettings], environment: Environment | None) -> Iterator[EffectiveSetting]:
    settings: BaseSettings = kind()
    prefix, variables = str(kind.model_config["env_prefix"]), set_variables()
    for name in kind.model_fields:
        variable = f"{prefix}{name}".upper()
        origin = _origin(variable, environment, kind.group(), name, variables)
        yield EffectiveSetting(variable, _shown(getattr(settings, name)), origin)


def _origin(variable: str, environment: Environment | None, group: str, key: str, variables: set[str]) -> str:
    if variable in variables:
        return "variable"
    if environment is not None and key in environment.keys(group):
        return f"{environment.path.name}:{environment.line(group, key)}"
    return "default"


def _shown(value: Any) -> str:
    match value:
        case SecretStr():
            return "…" if value.get_secret_value() else ""
        case tuple():
            return ",".join(map(str, value))
        case dict():
            return json.dumps(
                {name: getattr(item, "model_dump", lambda item=item: item)() for name, item in value.items()}
            )
        case None:
            return ""
        case bool():
            return str(value).lower()
    return without_passwords(str(value))
