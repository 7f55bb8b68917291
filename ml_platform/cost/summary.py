"""What the console, the HTTP route and Prometheus show of costs: one document, made with each ingest.

Serving reads it: standard library and pydantic only.
"""

from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from ml_platform.atomic_files import replace_file
from ml_platform.spec.types import Strict

DAYS = 30
FILE = "summary.json"


class Cost(Strict):
    """What one model, team or another name used."""

    name: str = Field(description="Of the model, team, job, caller, asset, kind, or day; `(none)` where it has none.")
    cpu_seconds: float = Field(description="CPU time, in seconds.")
    peak_bytes: int = Field(description="Most memory (PSS) at any time.")
    gib_hours: float = Field(description="Memory times time, in GiB hours.")
    bytes_read: int = Field(description="Bytes read.")
    bytes_written: int = Field(description="Bytes written.")
    runs: int = Field(description="Runs of Dagster.")
    requests: int = Field(description="Requests that serving answered.")
    price: float = Field(description="Price, in the currency of the summary.")


class BudgetLine(Strict):
    """How a budget stands."""

    name: str = Field(description="Name of the budget.")
    of: str = Field(description="What it is of.")
    share: float = Field(description="Largest share of an amount that is used; 1 and more: used up.")
    action: str = Field(description="What follows then: warn, queue or refuse.")
    text: str = Field(description="All of it in one line.")


class CostSummary(Strict):
    """Costs of the last 30 days."""

    at: datetime = Field(description="When it was made (UTC).")
    since: datetime = Field(description="From when on (UTC).")
    currency: str = Field(description="ISO 4217 code.")
    by: dict[str, list[Cost]] = Field(
        description="model, team, job, key, asset, kind → the costs of each, the dearest first; day → of each day."
    )
    budgets: list[BudgetLine] = Field(description="How the budgets stand.")


def write_summary(folder: Path, summary: CostSummary) -> None:
    """Publish a summary in place of the last one."""
    replace_file(folder / FILE, summary.model_dump_json().encode())


def read_summary(folder: Path) -> CostSummary | None:
    """Return the newest summary; None before the first.

    Raises
    ------
    ValueError
        When the file is damaged.
    """
    path = folder / FILE
    try:
        return CostSummary.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{path} is no summary of costs ({error}); a run of governance/cost replaces it") from error
