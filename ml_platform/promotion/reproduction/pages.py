"""A reproduction as text for a terminal, and as one HTML page that needs nothing else."""

from collections.abc import Iterator
from pathlib import Path

from ml_platform.registry import card_pages
from ml_platform.registry.reproductions import Check, Reproduction

_TEMPLATES = Path(__file__).parents[1] / "templates"
_PACKAGES = 8  # of the environment's differences that decide nothing


def reproduction_text(report: Reproduction) -> Iterator[str]:
    """Lines of a terminal: the verdict, then what was compared; what differs is marked by `*`."""
    yield f"{report.model} version {report.version}: {report.verdict}"
    for reason in report.reasons:
        yield f"  {reason}"
    for name, text in (("rows", report.rows), ("parameters", report.parameters)):
        if text:
            yield f"  {name}: {text}"
    yield from _part("Compared", report.checks)
    yield from _part("The project's definitions are others than those recorded, which were used", report.definitions)
    deciding = [check for check in report.environment if not check.equal]
    others = [check for check in report.environment if check.equal]
    yield from _part("The environment is another", [*deciding, *others[:_PACKAGES]])
    if len(others) > _PACKAGES:
        yield f"  and {len(others) - _PACKAGES} more that scores do not depend on"


def reproduction_html(report: Reproduction) -> str:
    """Write the page."""
    pages = card_pages.page_environment(_TEMPLATES, card_pages.TEMPLATES)
    return pages.get_template("reproduction.html").render(
        report=report,
        parts=[
            ("Compared", report.checks),
            ("Definitions that changed since (the recorded ones were used)", report.definitions),
            ("Environment", report.environment),
        ],
    )


def _part(title: str, checks: "tuple[Check, ...] | list[Check]") -> Iterator[str]:
    if not checks:
        return
    yield ""
    yield title
    width = min(44, max(len(check.what) for check in checks))
    for check in checks:
        values = check.recorded if check.recorded == check.found else f"{check.recorded} → {check.found}"
        yield f"{' ' if check.equal else '*'} {check.what:<{width}}  {values}".rstrip()
        for line in check.detail.splitlines():
            yield f"    {line}"
