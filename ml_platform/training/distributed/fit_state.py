"""How far a fit over several workers is: what a checkpoint holds."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

_STATE, _MODEL = "state.json", "model"


@dataclass(frozen=True)
class FitState:
    """How far a fit is.

    Attributes
    ----------
    stage
        `rounds` while their number is sought on validation rows, `fit` on all rows, `done`.
    rounds
        How many are fitted; 0 while it is sought.
    curve
        Loss on the validation rows by round.
    model
        The model so far; empty before the first is kept.
    """

    stage: Literal["rounds", "fit", "done"]
    rounds: int = 0
    curve: list[float] = field(default_factory=list)
    model: bytes = b""

    def write(self, folder: Path) -> None:
        """Write the state into a folder."""
        (folder / _STATE).write_text(json.dumps({**asdict(self), "model": None}))
        (folder / _MODEL).write_bytes(self.model)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote."""
        return cls(**{**json.loads((folder / _STATE).read_text()), "model": (folder / _MODEL).read_bytes()})
