"""What differs between a project's environments, such as dev, staging and prod: one file, `environments.yaml`.

    dev:
      schedules: false
    prod:
      home: /srv/ml-platform/prod
      tracking_uri: postgresql://ml:${MLFLOW_PASSWORD}@db/mlflow
      serving: {rate: 50}

`ML_PLATFORM_ENVIRONMENT` names the one that counts, else it is the first. A variable of the process's environment wins
over the file. Secrets stay out of it: `${NAME}` stands for the value of a variable.

Serving imports this.
"""

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from ml_platform.project import ProjectNotFound, current_project
from ml_platform.yaml_documents import Document, Location, SpecError, SpecProblem, documents, explain, unknown

FILE = "environments.yaml"
VARIABLE = "ML_PLATFORM_ENVIRONMENT"
PREFIX = "ML_PLATFORM_"
# Mappings of an environment, each read by settings of its own.
GROUPS = ("serving", "alert", "login", "openlineage", "ports")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_PASSWORD = re.compile(
    r"://[^/@\s]*:(?P<password>[^@/\s]+)@|[?&](?:password|secret|token|sig)=(?P<option>[^&\s]+)", re.I
)


@dataclass(frozen=True)
class Environment:
    """One environment of the file.

    Attributes
    ----------
    name
        Its key in the file.
    document
        The file, which knows the line of every key.
    """

    name: str
    document: Document

    @property
    def path(self) -> Path:
        """The file."""
        return self.document.path

    def keys(self, group: str) -> dict[str, Any]:
        """Keys and values as they are written: of a group, or of the environment itself for ""."""
        own = self.document.data[self.name] or {}
        if group:
            return dict(own.get(group) or {})
        return {key: value for key, value in own.items() if key not in GROUPS}

    def line(self, group: str, key: str) -> int:
        """Line of a key."""
        return self._problem((group, key) if group else (key,), "").line

    def values(self, group: str, fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
        """Values of a group's keys, of the types that their fields want.

        Raises
        ------
        SpecError
            With the line of each key that is not known, is a secret, names a variable that is not set, or whose value
            is not what its field takes.
        """
        problems, values = [], {}
        for key, value in self.keys(group).items():
            location = (group, key) if group else (key,)
            try:
                values[key] = self._value(group, key, value, fields)
            except ValueError as error:
                problems.append(self._problem(location, str(error)))
        if problems:
            raise SpecError(problems)
        return values

    def _value(self, group: str, key: str, value: Any, fields: Mapping[str, FieldInfo]) -> Any:
        if key not in fields:
            raise ValueError(unknown(key, [*fields, *(GROUPS if not group else ())], what="setting"))
        field = fields[key]
        variable = PREFIX + f"{group}_{key}".lstrip("_").upper()
        if field.annotation is SecretStr:
            raise ValueError(f"is a secret, which does not belong in a file; set the variable {variable} instead")
        value = _expanded(value, key)
        try:
            value = TypeAdapter(field.rebuild_annotation()).validate_python(value)
        except ValidationError as error:
            raise ValueError("; ".join(explain(BaseSettings, one) for one in error.errors())) from None
        # A path is the file's, wherever the process was started.
        return self.path.parent / value.expanduser() if isinstance(value, Path) else value

    def _problem(self, location: Location, message: str) -> SpecProblem:
        return self.document.problem((self.name, *location), message)


def _expanded(value: Any, key: str) -> Any:
    """Put the values of variables in the place of `${NAME}`, wherever texts are in a value (raises ValueError)."""
    if isinstance(value, dict):
        return {name: _expanded(item, key) for name, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, key) for item in value]
    if not isinstance(value, str):
        return value
    for match in _PASSWORD.finditer(value):
        if not _REFERENCE.fullmatch(match["password"] or match["option"]):
            raise ValueError(
                "holds a password, which does not belong in a file; write ${NAME} in its place and set the variable"
            )
    if missing := [name for name in _REFERENCE.findall(value) if name not in os.environ]:
        raise ValueError(f"the variable {missing[0]}, which it names, is not set; set it in the process's environment")
    return _REFERENCE.sub(lambda match: os.environ[match[1]], value)


def without_passwords(text: str) -> str:
    """Return a text as it may be shown.

    Examples
    --------
    >>> without_passwords("postgresql://ml:s3cret@db/mlflow")
    'postgresql://ml:…@db/mlflow'
    """

    def hidden(match: re.Match[str]) -> str:
        return match[0].replace(match["password"] or match["option"], "…")

    return _PASSWORD.sub(hidden, text)


def environments() -> dict[str, Environment]:
    """Return the environments of the project's file by name, in its order; none where there is no file or no project.

    Raises
    ------
    SpecError
        When the file is not a mapping of environments.
    """
    try:
        path = current_project().root / FILE
    except ProjectNotFound:
        return {}
    if not path.is_file():
        return {}
    found = documents(path)
    if len(found) != 1 or not isinstance(found[0].data, dict):
        raise SpecError(
            [SpecProblem(path, 1, "environments", "wanted one mapping, of environments: `dev:`, `prod:`, …")]
        )
    problems = []
    for name, keys in found[0].data.items():
        if not _NAME.fullmatch(str(name)):
            problems.append(found[0].problem((name,), f"wanted a name as `staging`, found {name!r}"))
            continue
        if not isinstance(keys, dict | None):
            problems.append(found[0].problem((name,), f"wanted the settings of {name}, found {keys!r}"))
            continue
        own = keys or {}
        problems += [
            found[0].problem((name, group), f"wanted a mapping of settings, found {own[group]!r}")
            for group in GROUPS
            if not isinstance(own.get(group), dict | None)
        ]
    if problems:
        raise SpecError(problems)
    return {name: Environment(name, found[0]) for name in found[0].data}


def environment_named(name: str) -> Environment:
    """Return an environment by its name (raises LookupError with those that there are)."""
    known = environments()
    if name in known:
        return known[name]
    if not known:
        raise LookupError(
            f"wanted the environment '{name}', and there is no {FILE} that describes it; write one beside the "
            f"project's pyproject.toml, or unset {VARIABLE}"
        )
    raise LookupError(unknown(name, known, what="environment"))


def current_environment() -> Environment | None:
    """Return the environment that this process works in; None where the project has no file of them.

    Raises
    ------
    EnvironmentUnknown
        When `ML_PLATFORM_ENVIRONMENT` names one that the file does not describe.
    SpecError
        When the file cannot be used.
    """
    name = os.environ.get(VARIABLE, "")
    if not name:
        return next(iter(environments().values()), None)
    try:
        return environment_named(name)
    except LookupError as error:
        raise EnvironmentUnknown(f"{VARIABLE}: {error.args[0]}") from None


class EnvironmentUnknown(ValueError):
    """`ML_PLATFORM_ENVIRONMENT` names an environment that the project does not describe."""


class EnvironmentSettings(BaseSettings):
    """Settings that come from the call, else from variables, else from the project's file, else from defaults."""

    @classmethod
    def group(cls) -> str:
        """The key of the file that holds these settings, from the prefix of their variables; "" for the top."""
        return str(cls.model_config.get("env_prefix", "")).removeprefix(PREFIX).rstrip("_").lower()

    @classmethod
    def of(cls, environment: Environment) -> Self:
        """Return the settings of an environment as the file alone has them, for work on another than the current one.

        Raises
        ------
        SpecError
            When the file has a key of it that cannot be used.
        """
        token = _ONLY.set(environment)
        try:
            return cls()
        finally:
            _ONLY.reset(token)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - named by the base class
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the file after the variables; nothing else but the file where another environment is meant."""
        only = _ONLY.get()
        if only is not None:
            return init_settings, _FileSource(settings_cls, cls.group(), only)
        return init_settings, env_settings, _FileSource(settings_cls, cls.group(), current_environment())


_ONLY: ContextVar[Environment | None] = ContextVar("_ONLY", default=None)


class _FileSource(PydanticBaseSettingsSource):
    """An environment's keys in the file, for pydantic's settings."""

    def __init__(self, settings: type[BaseSettings], group: str, environment: Environment | None) -> None:
        super().__init__(settings)
        self._group, self._environment = group, environment

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Wanted by the base class, which calls it for sources that read field by field."""
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of the keys that the environment sets."""
        if self._environment is None:
            return {}
        return self._environment.values(self._group, self.settings_cls.model_fields)
