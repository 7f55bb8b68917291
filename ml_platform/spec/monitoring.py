"""What is logged and watched of a model that serves, and what renews it: five parts of `defs.yaml`."""

from datetime import timedelta

from pydantic import Field

from ml_platform.spec.types import Cron, Declared, Duration, PositiveDuration


class Monitoring(Declared):
    """What is watched once the model serves."""

    schedule: Cron | None = Field(
        "15 * * * *", description="Cron (UTC) of ingesting the log and watching; null for none."
    )
    window: PositiveDuration = Field(
        timedelta(days=7), description="Span of scored rows compared with the training data."
    )
    min_rows: int = Field(500, ge=1, description="Smaller windows are reported as such, not judged.")
    significance: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Largest share of reports on undrifted rows in which some column may count as drifted; all tests "
        "of a report share half of it.",
    )
    distance: float = Field(
        0.1,
        gt=0,
        description="Smallest distance that counts, with a significant test: Cohen's h or Jensen-Shannon, and half of "
        "it as Kolmogorov-Smirnov's D.",
    )
    min_drift_importance: float = Field(
        0.15,
        ge=0,
        le=1,
        description="Share of the feature importance that must have drifted to alarm.",
    )
    prediction_drift: bool = Field(True, description="Drift of the prediction alone raises the alarm.")
    labels_final_after: Duration | None = Field(
        None,
        description="Age from which no label comes or changes any more, so that older days are not read again; "
        "all are, whenever a table of the spine changed, when absent.",
    )
    min_metric: float | None = Field(
        None, description="Promotion metric on labelled rows below (above) which an alert is raised."
    )


class Skew(Declared):
    """How features that serving computed are compared with what the lake says of their instants."""

    schedule: Cron | None = Field("45 3 * * *", description="Cron (UTC); null for none.")
    window: PositiveDuration = Field(
        timedelta(days=1), description="Span of answers compared, up to the newest logged."
    )
    sample_rows: int = Field(1000, ge=1, description="Logged rows compared, drawn by chance.")
    tolerance: float = Field(1e-6, ge=0, description="Relative difference of numbers that still counts as equal.")
    max_share: float = Field(
        0.01, ge=0, lt=1, description="Share of rows in which a feature may differ; more is skew once it is no chance."
    )
    min_rows: int = Field(30, ge=1, description="Fewer logged rows are compared and shown, not judged.")
    lag: Duration = Field(timedelta(hours=1), description="How long the online store may lack a row that is known.")


class InferenceLogging(Declared):
    """What of its answers serving logs; monitoring sees no more than that."""

    sample: float = Field(1.0, gt=0, le=1, description="Share of the requests, chosen by a hash of their ids.")
    redact: tuple[str, ...] = Field((), description="Inputs that never reach the log, nor what is computed from them.")
    hash: tuple[str, ...] = Field((), description="Strings and integers of which only an HMAC is logged.")


class Retraining(Declared):
    """What starts training again."""

    schedule: Cron | None = Field("0 6 * * 1", description="Cron, UTC; null for none.")
    on_drift: bool = Field(True, description="Whether a failed check on drift starts it.")
    on_performance: bool = Field(True, description="Whether a failed check on performance starts it.")
    cooldown: Duration = Field(timedelta(hours=24), description="Quiet time after a triggered run.")


class Recalibration(Declared):
    """How probabilities and intervals follow the labels that come, without training."""

    schedule: Cron | None = Field(None, description="Cron (UTC), a while after labels have come; null for none.")
    window: PositiveDuration = Field(
        timedelta(days=7), description="Newest labelled days that a calibration is learned on, and judged by."
    )
    min_rows: int = Field(200, ge=100, description="With fewer labelled rows nothing changes.")
    min_change: float = Field(
        0.002, ge=0, lt=1, description="Mean change of a probability below which no new version is made."
    )
    interval_window: PositiveDuration = Field(
        timedelta(days=14), description="Newest labelled days that intervals and sets are made of."
    )
    gamma: float = Field(
        0.15,
        ge=0,
        le=1,
        description="How far a day that intervals held too often or too rarely moves them (adaptive conformal "
        "inference); 0 for not at all.",
    )
