"""Recent findings of monitoring, in one small document per model: for readers without access to the lake.

    <releases>/status/<model>.json     replaced atomically; the last `KEPT` windows of drift and of performance

Serving shows it. Imports nothing but the standard library and msgspec.
"""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.registry.releases import ReleaseStore

KEPT = 60  # windows of each kind
WORST_COLUMNS = 8


class DriftedColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a window, beside the training data."""

    column: str
    drifted: bool
    importance: float  # share of the model's importance
    severity: float | None  # distance over its threshold: 1 and more is drift, where it is significant too
    reason: str  # in words and numbers


class DriftWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of scored rows with the training data; instants are UTC."""

    since: datetime
    until: datetime
    version: int
    rows: int
    verdict: Literal["drift", "no drift", "not judged"]
    drifted: int  # features
    judged: int
    drifted_importance: float  # share of the judged features' importance
    prediction_severity: float | None
    worst: tuple[DriftedColumn, ...]  # by falling severity
    reason: str


class PerformanceWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement with the labels that were known; instants are UTC."""

    since: datetime
    until: datetime
    version: int
    scored_rows: int
    rows: int  # of these, with a label
    verdict: Literal["fine", "below", "not judged"]
    metric: str
    value: float | None
    interval: tuple[float, float] | None  # 95 %
    holdout: float | None
    minimum: float | None
    reason: str


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Windows of one model, oldest first."""

    model: str
    written_at: datetime
    drift: tuple[DriftWindow, ...] = ()
    performance: tuple[PerformanceWindow, ...] = ()


class StatusUnreadable(ValueError):
    """A status document is damaged."""


def read_status(store: ReleaseStore, model: str) -> ModelStatus | None:
    """What was published of a model; None before the first window.

    Raises
    ------
    StatusUnreadable
        When the document is damaged.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_status(ReleaseStore(folder), "flight_delay") is None
    True
    """
    path = store.status_path(model)
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelStatus)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        message = (
            f"{path}: not a status document ({error}); delete it, and materialise {model}/drift_report to write it"
        )
        raise StatusUnreadable(message) from error


def add_window(
    store: ReleaseStore, model: str, kind: Literal["drift", "performance"], window: DriftWindow | PerformanceWindow
) -> None:
    """Add a window to the model's document, in place of an earlier one with the same end."""
    with locked(store.folder / "locks" / f"{model}.status.lock"):
        known = read_status(store, model) or ModelStatus(model=model, written_at=datetime.now(UTC))
        windows = [one for one in getattr(known, kind) if one.until != window.until]
        newest = tuple(sorted([*windows, window], key=lambda one: one.until)[-KEPT:])
        status = msgspec.structs.replace(known, written_at=datetime.now(UTC), **{kind: newest})
        replace_file(store.status_path(model), msgspec.json.encode(status))
