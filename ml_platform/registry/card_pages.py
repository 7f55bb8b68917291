"""A model card as Markdown, and as one HTML page that needs nothing else."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ml_platform.registry.history import reigns
from ml_platform.registry.interval_figure import interval_svg
from ml_platform.registry.manifest import describe_targets
from ml_platform.registry.model_card import ModelCard
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.reproductions import reproductions_of
from ml_platform.registry.uncertainty_page import reliability_svg, uncertainty_of

TEMPLATES = Path(__file__).parent / "templates"
_LARGEST = 20  # features that a card lists
NAIVE = "naive baseline"
# What Annex IV of Regulation (EU) 2024/1689 wants of a high-risk system's documentation, and where a card has it.
ANNEX_IV = (
    ("1", "General description: purpose, provider, version", ("Purpose", "Versions in service")),
    ("2 (a)-(c)", "Methods, design choices, what the system optimises for", ("Model", "Quality")),
    ("2 (d)", "Training data: provenance, scope, how it was obtained and selected", ("Data",)),
    ("2 (e)", "Human oversight measures", ("Oversight",)),
    ("2 (f)", "Pre-determined changes", ("Oversight",)),
    ("2 (g)", "Validation and testing: data, metrics, results", ("Quality",)),
    ("2 (h)", "Cybersecurity measures", ()),
    (
        "3",
        "Monitoring, functioning, limits, accuracy for groups of persons",
        ("Quality", "Uncertainty", "Limits and monitoring"),
    ),
    ("4", "Appropriateness of the metrics", ()),
    ("5", "Risk management system (Article 9)", ()),
    ("6", "Changes through the lifecycle", ("Versions in service",)),
    ("7, 8", "Standards applied; EU declaration of conformity", ()),
    ("9", "Post-market monitoring", ("Limits and monitoring",)),
    ("Article 12", "Logs", ("Limits and monitoring",)),
)


def card_markdown(store: ReleaseStore, card: ModelCard) -> str:
    """Write a card as Markdown."""
    return _render("card.md", store, card, autoescape=False)


def card_html(store: ReleaseStore, card: ModelCard) -> str:
    """Write a card as an HTML page without scripts, or anything from elsewhere."""
    return _render("card.html", store, card, autoescape=True)


def page_environment(*folders: Path, autoescape: bool = True) -> Environment:
    """Where pages that need nothing else are rendered, from the templates in some folders."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _render(template: str, store: ReleaseStore, card: ModelCard, *, autoescape: bool) -> str:
    environment = page_environment(TEMPLATES, autoescape=autoescape)
    environment.filters |= {"number": _number, "instant": _instant, "cell": _cell, "slug": _slug, "quoted": _quoted}
    ranked = sorted(card.features, key=lambda feature: -feature.importance)
    return environment.get_template(template).render(
        card=card,
        features=ranked[:_LARGEST],
        more_features=len(ranked[_LARGEST:]),
        names=_metric_names(card),
        sides=_sides(card),
        services=_services(store, card),
        reproductions=[one for one in reproductions_of(store, card.model, card.version) if one.digest == card.digest],
        uncertainty=uncertainty_of(store, card),
        reliability_plot=reliability_svg(card.reliability),
        annex=ANNEX_IV,
        intervals=_intervals(card),
    )


def _intervals(card: ModelCard) -> Markup:
    quality = card.quality
    if quality is None:
        return Markup("")
    return interval_svg(quality.interval, quality.within_blocks, quality.power.bound if quality.power else None)


def _metric_names(card: ModelCard) -> list[str]:
    if card.quality is None:
        return []
    others = sorted(name for name in card.quality.metrics if name != card.quality.metric)
    return [card.quality.metric, *others]


def _sides(card: ModelCard) -> dict[str, dict[str, float]]:
    """What the version is held against: the reference, and the naive answer where that is another."""
    if card.quality is None:
        return {}
    return {card.quality.reference: card.quality.reference_metrics, NAIVE: card.quality.naive_metrics}


def _services(store: ReleaseStore, card: ModelCard) -> list[dict[str, Any]]:
    """When the version was behind an endpoint of its model, oldest first."""
    return [
        {
            "endpoint": name,
            "since": reign.since,
            "until": reign.until,
            "serving": describe_targets(reign.document.targets),
            "action": reign.document.action,
            "by": reign.document.updated_by,
            "reason": reign.document.reason,
        }
        for name, document in store.documents().items()
        if document.model == card.model
        for reign in reigns(store, name)
        if card.digest in {target.digest for target in reign.document.targets}
    ]


def _number(value: float | None) -> str:
    """A number with about four significant digits, a dash for none.

    Examples
    --------
    >>> _number(0.712345), _number(12345.6), _number(None)
    ('0.7123', '12,346', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _instant(value: datetime | str | None) -> str:
    if value is None:
        return "now"
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _cell(value: object) -> str:
    """Text of a cell in a table of Markdown."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def _quoted(words: str) -> str:
    """Words of people as a quotation, so that no heading of theirs looks like one of the card's.

    Examples
    --------
    >>> print(_quoted("# Limits, and more"))
    > # Limits, and more
    """
    return "\n".join(f"> {line}".rstrip() for line in words.splitlines())


def _slug(title: str) -> str:
    """Anchor of a heading.

    Examples
    --------
    >>> _slug("Limits and monitoring")
    'limits-and-monitoring'
    """
    return title.lower().replace(" ", "-")
