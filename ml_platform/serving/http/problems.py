"""What is wrong with a request, as its sender is told."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ml_platform.spec.input_rules import Violated

MOST_PROBLEMS = 20  # listed in an answer, with the number of all


MOST_COUNTED = 1_000  # the search ends here: a refusal must not cost more than an answer


ProblemKind = Violated | Literal["type"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: its row (None when there is only one) and field, and what was wanted and found."""

    row: int | None
    field: str | None
    message: str
    kind: ProblemKind | None = None  # the part of the contract that an input's value breaks

    def __str__(self) -> str:
        place = "" if self.row is None else f"row {self.row}, "
        return f"{place}{self.field}: {self.message}" if self.field else f"{place}{self.message}"


class InvalidRequest(Exception):
    """A request that cannot be answered: status 400 when it is not JSON, 422 when it does not fit the signature."""

    def __init__(self, status: int, problems: Sequence[Problem], total: int | None = None) -> None:
        self.status = status
        self.problems = tuple(problems[:MOST_PROBLEMS])
        self.total = len(problems) if total is None else total
        self.kinds = Counter((problem.field, problem.kind) for problem in problems if problem.kind is not None)
        at_least = "at least " if self.total >= MOST_COUNTED else ""
        more = f" (and {at_least}{self.total - 1:,} more)" if self.total > 1 else ""
        super().__init__(f"{self.problems[0]}{more}")

    def reworded(self, word: Callable[[Problem], Problem]) -> "InvalidRequest":
        """The same refusal with other words for each problem that is listed."""
        other = InvalidRequest(self.status, [word(problem) for problem in self.problems], self.total)
        other.kinds = self.kinds
        return other
