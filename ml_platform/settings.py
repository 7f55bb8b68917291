"""Where the platform keeps its state: one folder, moved piece by piece by variables or by `environments.yaml`."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from ml_platform.environments import EnvironmentSettings
from ml_platform.project import current_project
from ml_platform.sqlite_uri import sqlite_uri


class Settings(EnvironmentSettings):
    """Locations, addresses and limits: of `ML_PLATFORM_<NAME>`, else of `environments.yaml`, else derived from `home`.

    Examples
    --------
    >>> from pathlib import Path
    >>> Settings(home=Path("/srv/platform")).releases_dir.as_posix()
    '/srv/platform/releases'
    """

    model_config = SettingsConfigDict(env_prefix="ML_PLATFORM_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: current_project().data, description="Folder of all local state.")
    lake_uri: str = Field("", description="Folder or object-store URI of the Delta tables; default `<home>/lake`.")
    tracking_uri: str = Field("", description="MLflow tracking and registry URI; default SQLite at `<home>/mlflow.db`.")
    online_uri: str = Field("", description="Online store URI; default `sqlite:///<home>/online.db`.")
    lake_retention_days: float = Field(
        30,
        ge=0,
        le=36_500,
        description="How long a replaced version of a table stays readable; a released model's stay for good.",
    )
    start_timeout_seconds: float = Field(
        900,
        gt=0,
        description="How long a process of `make dev` may take until it answers; on a very busy machine imports "
        "alone take minutes.",
    )
    serving_url: str = Field("http://127.0.0.1:8000", description="Where people and assets reach the serving app.")
    mlflow_ui_url: str = Field("http://127.0.0.1:5000", description="Where links to MLflow runs point.")
    schedules: bool = Field(
        True, description="Whether schedules run. Where not, each can still be switched on in Dagster's UI."
    )
    sensors: bool = Field(
        True,
        description="Whether sensors run that start work: retraining, new files, features to refresh, pushed rows. "
        "Those that send alerts and keep ledger and registry in step always do.",
    )
    audit_reads: bool | None = Field(
        None,
        description="Whether each read of a table by a command, notebook or job is a line of the audit log; by default "
        "where the platform asks for keys.",
    )
    promoters: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Users of the machine who may change at a terminal what serves, comma-separated; anybody who may "
        "write there when empty.",
    )

    key: SecretStr = Field(
        SecretStr(""),
        description="API key of whoever speaks in this terminal, notebook or process: set it in the environment, as "
        "`ML_PLATFORM_KEY`.",
    )

    @field_validator("promoters", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(filter(None, re.split(r"[\s,]+", value))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _derive(self) -> Self:
        home = self.home.expanduser().resolve()
        derived = {
            "home": home,
            "lake_uri": self.lake_uri or str(home / "lake"),
            "tracking_uri": self.tracking_uri or sqlite_uri(home / "mlflow.db"),
            "online_uri": self.online_uri or sqlite_uri(home / "online.db"),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)  # the model is frozen; this is its own construction
        return self

    @property
    def releases_dir(self) -> Path:
        """Folder of the release store: bundles and endpoint documents."""
        return self.home / "releases"

    @property
    def inference_log_dir(self) -> Path:
        """Folder where serving appends its prediction records before they reach the lake."""
        return self.home / "inference_log"

    @property
    def outcomes_dir(self) -> Path:
        """Where serving notes how each request of a canary walk went."""
        return self.home / "outcomes"

    @property
    def push_log_dir(self) -> Path:
        """Folder where serving appends rows pushed to feature views before they reach the lake."""
        return self.home / "push_log"

    @property
    def keys_dir(self) -> Path:
        """Folder of the API keys that serving asks for."""
        return self.home / "keys"

    @property
    def access_dir(self) -> Path:
        """Folder of the access policy: groups, grants, owners, tags."""
        return self.home / "access"

    @property
    def login_dir(self) -> Path:
        """Folder of the accounts of people, and of their sessions."""
        return self.home / "login"

    @property
    def audit_dir(self) -> Path:
        """Folder where serving appends who asked for what."""
        return self.home / "audit"

    @property
    def cost_dir(self) -> Path:
        """Folder of what was used and is not in its table yet, and of how the budgets stand."""
        return self.home / "cost"

    @property
    def in_force_dir(self) -> Path:
        """Folder where serving notes which document of each endpoint was last in force."""
        return self.home / "in_force"

    @property
    def suppression_file(self) -> Path:
        """Copy of the lake's list of who was erased, by which serving leaves out rows that are pushed for them."""
        return self.home / "erasures" / "suppressed.json"

    @property
    def alerts_dir(self) -> Path:
        """Folder of the alerts: all that were raised, those that wait for the webhook, and which were sent."""
        return self.home / "alerts"

    @property
    def reports_dir(self) -> Path:
        """Folder of the HTML reports."""
        return self.home / "reports"

    @property
    def studies_dir(self) -> Path:
        """Folder of the searches' trials, by which an interrupted search goes on."""
        return self.home / "studies"

    @property
    def scoring_dir(self) -> Path:
        """Folder of the parts of batch scorings under way, by which one that was interrupted goes on."""
        return self.home / "scoring"

    @property
    def streams_dir(self) -> Path:
        """Folder of the statuses of streams' workers."""
        return self.home / "streams"

    @property
    def feature_streams_dir(self) -> Path:
        """Folder of the state of streamed feature views, and of how their processes do."""
        return self.home / "feature_streams"

    @property
    def notebooks_dir(self) -> Path:
        """Runs of notebooks, each with its outputs and its page."""
        return self.home / "notebooks"

    @property
    def handoff_dir(self) -> Path:
        """Folder of the small documents that one asset hands to the next."""
        return self.home / "handoffs"
