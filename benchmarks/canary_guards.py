"""How often the guards of a canary walk send an equal version back, and how often a worse one.

Each repetition is a whole walk of the default steps: 5 % and 25 % of the traffic, each looked at on the way and at its
end, as `monitoring.canary.guards` does. The requests are of ids of which a few send most, and that differ in how often
they fail, are flagged, how long they take and how they score (`ml_platform_tests.monitoring.canary.walks`).

    python benchmarks/canary_guards.py [--sizes 200 1000] [--repetitions 300] [--power-repetitions 50]
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

import numpy as np
from _results import at_most, write_section

from ml_platform.monitoring.canary.guards import GUARDS, judge_step
from ml_platform.registry.manifest import CanaryPolicy
from ml_platform_tests.monitoring.canary.walks import requests

POLICY = CanaryPolicy()
TRAFFIC: dict[str, dict[str, float]] = {
    "400 ids": {"ids": 400},
    "5,000 ids": {"ids": 5_000},
    "100,000 ids": {"ids": 100_000},
    "5,000 ids, one request in ten fails": {"ids": 5_000, "errors": 0.1},
}
WORSE: dict[str, dict[str, float]] = {
    "2 % more of the requests fail (1 % at the champion)": {"more_errors": 0.02},
    "5 % more": {"more_errors": 0.05},
    "10 % more": {"more_errors": 0.1},
    "every request fails": {"more_errors": 1.0},
    "1.5 times as slow": {"slower": 1.5},
    "2 times as slow": {"slower": 2.0},
    "3 times as slow": {"slower": 3.0},
    "10 % more of the requests flagged (2 % at the champion)": {"more_flags": 0.1},
    "20 % more": {"more_flags": 0.2},
    "scores moved by a half of their spread": {"shift": 0.56},
    "by the whole": {"shift": 1.12},
    "by twice": {"shift": 2.24},
}


def walks(task: tuple[dict[str, float], int, int]) -> Counter[str]:
    """Walks that are rolled back, of so many, by guard; under "any" those by any of them."""
    settings, number, repetitions = task
    keywords: dict[str, Any] = settings
    found: Counter[str] = Counter()
    for repetition in range(repetitions):
        random = np.random.default_rng([repetition, number])
        for percent in POLICY.steps[:-1]:
            breaches = judge_step(requests(random, percent / 100, number, **keywords), POLICY, is_end=True).breaches
            if breaches:
                found.update({"any", *(finding.guard for finding in breaches)})
                break
    return found


def _rows(
    kinds: dict[str, dict[str, float]], counts: dict[tuple[str, int], str], last: dict[str, str]
) -> Iterator[str]:
    for name in kinds:
        cells = " | ".join(count for (kind, _), count in counts.items() if kind == name)
        yield f"| {name} | {cells} |{last.get(name, '')}"


def main() -> None:
    """Run and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1_000], help="Requests of the canary in a step.")
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--power-repetitions", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    equal, worse, sizes = options.repetitions, options.power_repetitions, options.sizes
    tasks = [(name, number, (kind, number, equal)) for name, kind in TRAFFIC.items() for number in sizes]
    harder = [(name, number, (kind, number, worse)) for name, kind in WORSE.items() for number in sizes]
    with get_context("spawn").Pool(options.processes) as pool:
        found = pool.map(walks, [task for *_, task in tasks + harder], chunksize=1)
    alarms = {(name, number): one for (name, number, _), one in zip(tasks, found, strict=False)}
    power = {(name, number): one for (name, number, _), one in zip(harder, found[len(tasks) :], strict=True)}
    guards = {
        name: f" {', '.join(guard for guard in GUARDS if any(power[name, number][guard] for number in sizes))} |"
        for name in WORSE
    }
    heads = " | ".join(f"{number:,} requests" for number in sizes)
    columns = "---|" * (len(sizes) + 1)
    total = sum((one for one in alarms.values()), Counter[str]())
    by_guard = ", ".join(f"{guard} {total[guard]}" for guard in GUARDS)
    lines = [
        f"Whole walks of the default steps ({', '.join(f'{step:g} %' for step in POLICY.steps)}) and bounds, with "
        f"`false_alarm` {POLICY.false_alarm:g}; by the canary's requests in each step. Walks of a version equal to the "
        "champion that were sent back by a guard, and the rate that they leave possible (95 %). No guard "
        "judges ids of fewer than ten groups on a side: such a walk waits for more.",
        "",
        f"| traffic | {heads} |",
        f"|{columns}",
        *_rows(TRAFFIC, {key: at_most(one["any"], equal) for key, one in alarms.items()}, {}),
        "",
        f"All together {at_most(total['any'], equal * len(tasks))}; by guard: {by_guard}.",
        "",
        f"Walks of a worse version, with 5,000 ids, that were sent back, of {worse:,}:",
        "",
        f"| the canary | {heads} | guards that found it |",
        f"|{columns}---|",
        *_rows(WORSE, {key: f"{one['any'] / worse:.0%}" for key, one in power.items()}, guards),
    ]
    command = (
        f"python benchmarks/canary_guards.py --sizes {' '.join(map(str, sizes))} --repetitions {equal} "
        f"--power-repetitions {worse}"
    )
    print(write_section("Canary: false alarms and power", command, lines, packages=("numpy", "scipy")))


if __name__ == "__main__":
    main()
