"""A model card as Markdown, and as one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ml_platform.registry.history import reigns
from ml_platform.registry.interval_figure import interval_svg
from ml_platform.registry.manifest import describe_targets
from ml_platform.registry.model_card import ModelCard
from ml_platform.registry.noted_losses import TableVersion, noted_losses
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.reproductions import reproductions_of
from ml_platform.registry.uncertainty_page import reliability_svg, uncertainty_of

TEMPLATES = Path(__file__).parent / "templates"
_LARGEST = 20  # features that a card lists
NAIVE = "naive baseline"
# What Annex IV and Articles 10 to 15 of Regulation (EU) 2024/1689 want of a high-risk system: what is asked for, where
# the evidence itself is kept (`{…}` are of the card), and where a card has it.
ANNEX_IV = (
    ("1", "General description: purpose, provider, version", "MLflow's page of the version", ("Purpose",)),
    ("2 (a)-(c)", "Methods, design choices, what the system optimises for", "{run}", ("Model", "Quality")),
    ("2 (d)", "Training data: provenance, scope, how it was obtained and selected", "{training_set}", ("Data",)),
    ("2 (e)", "Human oversight measures", "`ml-platform approvals list {model} --all`", ("Oversight",)),
    ("2 (f)", "Pre-determined changes", "defs.yaml at {code}", ("Oversight",)),
    ("2 (g)", "Validation and testing: data, metrics, results", "{run}", ("Quality",)),
    ("2 (h)", "Cybersecurity measures", "`ml-platform keys list`, `ml-platform audit verify`", ()),
    (
        "3",
        "Monitoring, functioning, limits, accuracy for groups of persons",
        "`{model}/performance` and `{model}/drift_report` in Dagster",
        ("Quality", "Uncertainty", "Limits and monitoring"),
    ),
    ("4", "Appropriateness of the metrics", "", ()),
    ("5", "Risk management system (Article 9)", "", ()),
    ("6", "Changes through the lifecycle", "`ml-platform history {model}`", ("Versions in service", "Said by people")),
    ("7, 8", "Standards applied; EU declaration of conformity", "", ()),
    ("9", "Post-market monitoring", "`ml-platform status {model}`", ("Limits and monitoring",)),
    ("Article 10", "Data governance: origin, quality, gaps, biases", "{training_set}", ("Data",)),
    ("Article 12", "Logs", "the table `inference_log/{model}`", ("Limits and monitoring",)),
    ("Article 14", "Who oversees it, approved it, and can stop it", "the table `governance/ledger`", ("Oversight",)),
    ("Article 15", "Accuracy and robustness", "bundle {bundle}", ("Quality", "Uncertainty")),
)


def card_markdown(store: ReleaseStore, card: ModelCard, *, lost: Sequence[TableVersion] | None = None) -> str:
    """Write a card as Markdown.

    Parameters
    ----------
    store
        Holds what became of the version since the card was written.
    card
        The card.
    lost
        Table versions that cannot be read any more; as they were last noted when None.
    """
    return _render("card.md", store, card, lost=lost, autoescape=False)


def card_html(
    store: ReleaseStore,
    card: ModelCard,
    *,
    lost: Sequence[TableVersion] | None = None,
    pages: Mapping[str, str] | None = None,
) -> str:
    """Write a card as an HTML page without scripts, or anything from elsewhere.

    Parameters
    ----------
    store, card, lost
        As for `card_markdown`.
    pages
        Title → address of other pages of the version, where the card is shown among them.
    """
    return _render("card.html", store, card, lost=lost, autoescape=True, pages=pages or {})


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


def _render(
    template: str,
    store: ReleaseStore,
    card: ModelCard,
    *,
    lost: Sequence[TableVersion] | None,
    autoescape: bool,
    **more: object,
) -> str:
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
        annex=_annex(card),
        approval=store.approvals.get(card.model, card.version),
        needs_approval=store.approvals.policy(card.model) is not None,
        notes=store.notes.load(card.model, card.version),
        lost=noted_losses(store, card.provenance) if lost is None else lost,
        **more,
        intervals=_intervals(card),
    )


def _annex(card: ModelCard) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """The record that is asked for, with where this version's evidence is kept."""
    made_of = card.provenance
    known = {
        "model": card.model,
        "training_set": f"the table `{made_of.training_set}` version {made_of.training_set_version}",
        "run": f"MLflow run {made_of.mlflow_run_id}" if made_of.mlflow_run_id else "no run",
        "code": f"commit {made_of.code_version}",
        "bundle": card.digest[:12],
    }
    return [(number, subject, kept.format(**known), sections) for number, subject, kept, sections in ANNEX_IV]


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
