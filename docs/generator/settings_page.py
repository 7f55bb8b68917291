"""The environment variables of the platform, from the fields of the settings that they fill."""

from collections.abc import Iterator

from pydantic_settings import BaseSettings

from docs.generator.markdown import code, page, table
from docs.generator.pydantic_fields import bounds, default_words, type_words
from ml_platform import environments, private_files, project
from ml_platform.lineage.openlineage_transport import OpenLineageSettings
from ml_platform.login.settings import LoginSettings
from ml_platform.monitoring.alerts.alert import AlertSettings
from ml_platform.orchestration import webserver_guard
from ml_platform.processes.platform import PORTS, TITLES, port_variable
from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings

GROUPS: dict[str, type[BaseSettings]] = {
    "Places": Settings,
    "The server": ServingSettings,
    "Alerts": AlertSettings,
    "The login": LoginSettings,
    "Lineage events": OpenLineageSettings,
}
DERIVED_DEFAULTS = {
    "ML_PLATFORM_HOME": "data/ of the project",
    "ML_PLATFORM_LAKE_URI": "<home>/lake",
    "ML_PLATFORM_TRACKING_URI": "SQLite at <home>/mlflow.db",
    "ML_PLATFORM_ONLINE_URI": "sqlite:///<home>/online.db",
}


def fields_of(settings: type[BaseSettings]) -> dict[str, str]:
    """Return the fields of some settings by their environment variables."""
    prefix = settings.model_config["env_prefix"]
    return {f"{prefix}{name}".upper(): name for name in settings.model_fields}


def process_variables() -> dict[str, tuple[str, str]]:
    """Return the variables that are read before any settings: default and meaning by name."""
    ports = {
        port_variable(name): (str(port), f"Port of {TITLES[name].split(' (')[0]} when `make dev` starts it.")
        for name, port in PORTS.items()
    }
    return {
        project.VARIABLE: (
            "the one around the working directory, else around the environment",
            "Folder of the project that is worked for: the one with its `pyproject.toml`.",
        ),
        environments.VARIABLE: (
            "the first of `environments.yaml`",
            "Which environment of the project's `environments.yaml` counts.",
        ),
        **ports,
        webserver_guard.HOSTS_VARIABLE: (
            "none",
            "Further names by which Dagster's UI may be asked, `host:port`, comma-separated; a proxy needs them.",
        ),
        private_files.UMASK_VARIABLE: (
            f"{private_files.PRIVATE:03o}",
            "Which permissions files are written without, in octal: 077 for their user alone, 007 for a group as well.",
        ),
    }


def documented_variables() -> set[str]:
    """Return the names of all variables on the page."""
    return {name for settings in GROUPS.values() for name in fields_of(settings)} | set(process_variables())


def _rows(settings: type[BaseSettings]) -> Iterator[list[str]]:
    for variable, name in fields_of(settings).items():
        field = settings.model_fields[name]
        limits = bounds(field)
        kind = type_words(field.rebuild_annotation())
        default = DERIVED_DEFAULTS.get(variable) or code(default_words(field))
        yield [f"`{variable}`", f"{kind}, {limits}" if limits else kind, default, field.description or ""]


def settings_page() -> str:
    """Return the page of all settings."""
    parts = []
    for title, settings in GROUPS.items():
        parts += [f"## {title}", table(["variable", "value", "default", "meaning"], _rows(settings))]
    process = ([f"`{name}`", default, meaning] for name, (default, meaning) in process_variables().items())
    return page(
        "Settings",
        """Everything is set by environment variables, or by the keys of an environment in
[`environments.yaml`](../how-to/environments.md), over which variables win: `ML_PLATFORM_LAKE_URI` is `lake_uri` there,
`ML_PLATFORM_SERVING_RATE` is `rate` in `serving`, `ML_PLATFORM_ALERT_REPEAT_HOURS` is `repeat_hours` in `alert`,
`ML_PLATFORM_LOGIN_URL` is `url` in `login`, ports are in `ports`. `<home>` is the folder `ML_PLATFORM_HOME`. Lists in
the environment are comma-separated, mappings are JSON. Under systemd they go into `/etc/ml-platform.env`
([systemd](../operations/systemd.md)).""",
        *parts,
        "## Processes and files",
        table(["variable", "default", "meaning"], process),
        """## Variables of other software

Credentials of object stores (`AWS_ACCESS_KEY_ID`, … [buckets](../how-to/lake/buckets.md)), MLflow's lists of host names
([who may ask](../operations/access.md)), OpenTelemetry's (`OTEL_…`, [traces](../how-to/serving/observe.md#traces)) and
Ray's (`RAY_…`, [Ray Serve](../how-to/serving/ray.md)) keep their own names and meanings. The telemetry of every library
is off.""",
    )
