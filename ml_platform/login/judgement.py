"""What the rules of a user interface say of one request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Judgement:
    """Which role a request needs, and what it is.

    Attributes
    ----------
    role
        The role that it needs; None when nobody may.
    action
        What it does, for the audit log and the answer: `deleteRun`, `POST /api/2.0/mlflow/runs/create`.
    is_change
        Whether it changes anything, and so is noted when it is performed, too.
    reason
        Why nobody may.
    """

    role: str | None
    action: str
    is_change: bool = False
    reason: str = ""
