"""Where the final training runs: in one process, or over workers that each read their own part of the rows."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, Self

from pydantic import Field, model_validator

from ml_platform.distribution import DISTRIBUTION
from ml_platform.spec.families import BUILT_IN, family_info
from ml_platform.spec.types import Declared

DISTRIBUTED_CELLS = 200_000_000  # numbers of a matrix (1.6 GB) from which `auto` distributes: in process it takes 4×


class Training(Declared):
    """The training after the search, and the refit after the gate: in this process, or over Ray Train workers."""

    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that train one model together, each on its own part of the rows, read from the lake. "
        "With 1 the whole training set is read into this process.",
    )
    executor: Literal["auto", "local", "ray"] = Field(
        "auto",
        description="Whether several workers are used: `ray` always, `local` never, `auto` from 200 million numbers in "
        "the training set (rows × features). They run on the cluster in `RAY_ADDRESS`, else as processes of this "
        "machine.",
    )
    cpus_per_worker: int = Field(1, ge=1, le=1024, description="Cores that each worker takes and has threads for.")

    @model_validator(mode="after")
    def _wants_workers(self) -> Self:
        if self.executor == "ray" and self.workers == 1:
            raise ValueError("executor: ray wants workers: 2 or more; one worker would hold all rows")
        if self.may_distribute and find_spec("ray") is None:
            raise ValueError(
                f"workers: {self.workers} need Ray, which is not installed: pip install '{DISTRIBUTION}[ray]', or set "
                "executor: local"
            )
        return self

    @property
    def may_distribute(self) -> bool:
        """Whether some training set is large enough for several workers."""
        return self.workers > 1 and self.executor != "local"

    def distributes(self, cells: int) -> bool:
        """Whether several workers train on a matrix of so many numbers; by their count, so that each run does the same.

        Examples
        --------
        >>> Training(workers=4).distributes(10**6), Training(workers=4).distributes(10**9)
        (False, True)
        """
        return self.may_distribute and (self.executor == "ray" or cells >= DISTRIBUTED_CELLS)


def check_distributed(training: Training, families: Sequence[str]) -> None:
    """Refuse workers for families that cannot be trained over several (raises ValueError, with those that can)."""
    if not training.may_distribute:
        return
    if unable := sorted(name for name in families if not family_info(name).distributed):
        able = ", ".join(info.name for info in BUILT_IN.values() if info.distributed)
        raise ValueError(
            f"workers: {training.workers}, but {unable} under `families` cannot be trained over several; of the "
            f"engine's families can: {able}. Leave the others out, or set executor: local"
        )
