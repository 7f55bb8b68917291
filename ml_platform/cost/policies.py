"""What the project's `policies:` forbid its models, each breach at its file, line and key."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ml_platform.cost.config import CostConfig, Policies, place_of
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import COMPONENT
from ml_platform.yaml_documents import Location, SpecError, SpecProblem, documents


def check_models(config: CostConfig, specs: Mapping[Path, ModelSpec]) -> None:
    """Check models against the policies.

    Parameters
    ----------
    config
        The project's `cost.yaml`.
    specs
        The models, by their files.

    Raises
    ------
    SpecError
        With file, line and key of all that break one, and of the policy.
    """
    if config.policies == Policies():
        return
    problems = [
        _problem(path, spec.name, location, f"{found}; the policy in {place_of(('policies', policy))} allows {allowed}")
        for path, spec in specs.items()
        for location, found, policy, allowed in _breaches(config.policies, spec)
    ]
    if problems:
        raise SpecError(problems)


def _breaches(policies: Policies, spec: ModelSpec) -> Iterator[tuple[Location, str, str, str]]:
    if policies.executors is not None:
        allowed = ", ".join(policies.executors)
        for part in ("tuning", "training"):
            executor = getattr(spec, part).executor
            if executor not in policies.executors:
                yield (part, "executor"), f"found '{executor}'", "executors", allowed
    if policies.training_workers is not None and spec.training.workers > policies.training_workers:
        found = f"found {spec.training.workers}"
        yield ("training", "workers"), found, "training_workers", f"at most {policies.training_workers}"
    if policies.trials is not None:
        trials = spec.tuning.most_trials(len(spec.families))
        if trials > policies.trials:
            found = f"found {trials} trials over {len(spec.families)} families"
            yield ("tuning", "trials"), found, "trials", f"at most {policies.trials}"
    if policies.require_budget and spec.budget.spending is None:
        yield ("budget", "spending"), "is missing", "require_budget", "models with a budget only"


def _problem(path: Path, model: str, location: Location, message: str) -> SpecProblem:
    for document in documents(path):
        if document.component == COMPONENT and (document.data.get("attributes") or {}).get("name") == model:
            return document.problem(("attributes", *location), message)
    return SpecProblem(path, 1, ".".join(map(str, location)), message)


def check_schedules(config: CostConfig, schedules: Mapping[str, str], shortest: Callable[[str], float]) -> None:
    """Check that no schedule starts more often than the policies allow.

    Parameters
    ----------
    config
        The project's `cost.yaml`.
    schedules
        Schedule → cron.
    shortest
        Gives the least seconds between two ticks of a cron.

    Raises
    ------
    SpecError
        With each schedule that does, at the policy's place.
    """
    least = config.policies.schedule_interval
    if least is None:
        return
    where = place_of(("policies", "schedule_interval"))
    file, line = _place(where)
    problems = [
        SpecProblem(
            file, line, "policies.schedule_interval",
            f"schedule '{name}' ({cron}) starts every {shortest(cron):,.0f} s, and {least.total_seconds():,.0f} s are "
            "the least: change the schedule's cron, or this",
        )
        for name, cron in sorted(schedules.items())
        if shortest(cron) < least.total_seconds()
    ]  # fmt: skip
    if problems:
        raise SpecError(problems)


def _place(where: str) -> tuple[Path, int]:
    file, _, rest = where.partition(":")
    line = rest.partition(":")[0]
    return Path(file), int(line) if line.isdigit() else 1
