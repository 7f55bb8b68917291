"""One results file for all benchmarks: each script owns a section of RESULTS.md and replaces it when it runs again."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")
HEADER = """# Results

Measured by the scripts in this folder; each section is replaced when its script runs again. The machines are small and
shared, so trust ratios and counts, not seconds.
"""
_SECTION = re.compile(r"^## ", re.MULTILINE)


def write_section(
    title: str, command: str, lines: Iterable[str], *, packages: Sequence[str] = (), path: Path = RESULTS
) -> str:
    r"""Write, or replace, the section `title` of the results file and return its text.

    Parameters
    ----------
    title
        Heading of the section; a section of the same title is replaced where it stands.
    command
        How to run it again, from the project's root.
    lines
        Markdown lines of the body: a sentence, a table.
    packages
        Distributions whose installed versions the figures depend on.
    path
        File to write.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "RESULTS.md"
    >>> _ = write_section("Speed", "python benchmarks/speed.py", ["2.0 times"], path=file)
    >>> _ = write_section("Speed", "python benchmarks/speed.py", ["1.9 times"], path=file)
    >>> text = file.read_text()
    >>> text.count("## Speed"), "1.9 times" in text, "2.0 times" in text
    (1, True, False)
    """
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    facts = [
        datetime.now(UTC).date().isoformat(),
        f"Python {platform.python_version()}" + (f", {versions}" if versions else ""),
        f"{os.cpu_count()} cores, {platform.machine()} {platform.system()}",
    ]
    section = "\n".join([f"## {title}", "", f"`{command}` · {' · '.join(facts)}", "", *lines]).rstrip() + "\n"
    header, *sections = _SECTION.split(path.read_text(encoding="utf-8") if path.exists() else HEADER)
    kept = [f"## {text.rstrip()}\n" for text in sections]
    places = [place for place, text in enumerate(kept) if text.startswith(f"## {title}\n")]
    if places:
        kept[places[0]] = section
    else:
        kept.append(section)
    whole = "\n".join([header.rstrip() + "\n", *kept])
    temporary = path.with_suffix(".tmp")
    temporary.write_text(whole, encoding="utf-8")
    temporary.replace(path)
    return section


def at_most(alarms: int, repetitions: int) -> str:
    """Alarms, and the rate that they leave possible: one-sided 95 % bound by Clopper and Pearson.

    Examples
    --------
    >>> at_most(0, 1000)
    '0 of 1,000 (≤ 0.3%)'
    """
    from scipy.stats import beta

    bound = beta.ppf(0.95, alarms + 1, repetitions - alarms)
    return f"{alarms} of {repetitions:,} (≤ {bound:.1%})"
