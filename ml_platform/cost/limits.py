"""What a step may use: limits of `cost.yaml` and of the model's YAML, each with the place where it is changed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ml_platform.spec.budget import StepLimits
from ml_platform.spec.types import duration

GIB = 2**30


@dataclass(frozen=True)
class StepLimit:
    """One limit.

    Attributes
    ----------
    what
        What is limited.
    value
        Seconds of CPU, bytes of memory, or seconds.
    text
        The value as people say it.
    where
        File, line and key of it.
    """

    what: Literal["cpu", "memory", "time"]
    value: float
    text: str
    where: str


def step_limits(limits: StepLimits, where: str) -> Iterator[StepLimit]:
    """Return the limits that are set.

    Parameters
    ----------
    limits
        As they were written.
    where
        Where: a file and the key that holds them.

    Examples
    --------
    >>> from datetime import timedelta
    >>> [one.text for one in step_limits(StepLimits(cpu=timedelta(hours=2), memory_gib=1.5), "cost.yaml: step_limits")]
    ['2 hours of CPU time', '1.5 GiB of memory']
    """
    if limits.cpu is not None:
        text = f"{duration(limits.cpu)} of CPU time"
        yield StepLimit("cpu", limits.cpu.total_seconds(), text, f"{where}.cpu")
    if limits.memory_gib is not None:
        text = f"{limits.memory_gib:g} GiB of memory"
        yield StepLimit("memory", limits.memory_gib * GIB, text, f"{where}.memory_gib")
    if limits.time is not None:
        yield StepLimit("time", limits.time.total_seconds(), duration(limits.time), f"{where}.time")


def exceeded(
    limits: Iterable[StepLimit], step: str, *, cpu_seconds: float, memory_bytes: int, seconds: float
) -> str | None:
    """Say which limit a step is over, what it used, and where the limit is changed; None for none.

    Examples
    --------
    >>> limit = StepLimit("time", 60.0, "1 minute", "cost.yaml:3: step_limits.time")
    >>> print(exceeded([limit], "toy/fit", cpu_seconds=1.0, memory_bytes=0, seconds=61.0))
    toy/fit was stopped: it used 61 s, and may use 1 minute. Change cost.yaml:3: step_limits.time
    """
    used = {
        "cpu": (cpu_seconds, f"{cpu_seconds:.1f} s of CPU time"),
        "memory": (float(memory_bytes), f"{memory_bytes / GIB:.2f} GiB of memory"),
        "time": (seconds, f"{seconds:.0f} s"),
    }
    for limit in limits:
        amount, text = used[limit.what]
        if amount > limit.value:
            return f"{step} was stopped: it used {text}, and may use {limit.text}. Change {limit.where}"
    return None
