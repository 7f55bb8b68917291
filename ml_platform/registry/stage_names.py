"""The words that people know for where a version stands, over what serves and has served."""

from typing import Final, Literal

Stage = Literal["Production", "Staging", "Archived", "None"]
PRODUCTION: Final = "Production"
STAGING: Final = "Staging"
ARCHIVED: Final = "Archived"
NONE: Final = "None"
STAGES: dict[str, Stage] = {PRODUCTION: PRODUCTION, STAGING: STAGING, ARCHIVED: ARCHIVED, NONE: NONE}
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"


def stage_named(word: str) -> Stage:
    """A stage by its name, however it is written (raises ValueError).

    Examples
    --------
    >>> stage_named("archived")
    'Archived'
    """
    for name, stage in STAGES.items():
        if name.lower() == word.strip().lower():
            return stage
    raise ValueError(f"stage: wanted {', '.join(STAGES)}, found '{word[:40]}'")
