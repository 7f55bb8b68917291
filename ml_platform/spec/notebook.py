"""What a notebook is that runs as an asset, as its owner writes it in `defs.yaml`."""

from pydantic import Field, JsonValue

from ml_platform.spec.types import Cron, Declared, PositiveDuration


class NotebookSpec(Declared):
    """A notebook that is run with parameters, by hand or on a schedule, and kept as a page."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{1,62}$",
        description="Lower case, digits and underscores. The asset is `notebooks/<name>`.",
    )
    description: str = Field(description="What the page tells, and whom.")
    owner: str = Field(description="Who answers for it: an e-mail address, or team:<name>.")
    notebook: str = Field(description="File beside defs.yaml, `.py` (py:percent), `.md` or `.ipynb`.")
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict, description="Values for names that the cell tagged `parameters` assigns."
    )
    after: tuple[str, ...] = Field(
        (), description="Assets that it reads, as raw/flights or flight_delay/performance: shown as what it is made of."
    )
    schedule: Cron | None = Field(None, description="Cron (UTC); null for none.")
    time_limit: PositiveDuration = Field(
        "1 hour", description="What all cells together may take.", validate_default=True
    )
    show_code: bool = Field(False, description="Whether the page shows the cells' code.")
    keep: int = Field(30, ge=1, le=10_000, description="Runs that are kept, each with its page.")
