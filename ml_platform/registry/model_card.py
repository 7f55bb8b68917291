"""The model card of a version: what it is for, what made it, how good it is, where it fails, and who answers for it.

A card is written once, when its version is registered, from what was recorded then. What a version has served since is
added when it is shown. `ml_platform.registry.card_pages` shows it.
"""

from pathlib import Path
from typing import Any

from ml_platform.atomic_files import replace_file
from ml_platform.registry.manifest import Calibration, Conformal, Feature, Provenance, Recalibrated, Reliability, Struct
from ml_platform.registry.releases import ReleaseStore, is_name
from ml_platform.registry.stored_documents import document_bytes, read_document


class CardSlice(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The gate's metric on one group of the compared rows."""

    column: str
    value: str
    rows: int
    metric: float
    reference: float
    passed: bool


class CardInterval(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Of the gain over the reference, in units of the metric; positive is better."""

    gain: float
    lower: float
    upper: float
    confidence: float
    blocks: int
    block: str


class CardGuardrail(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Something beside the gain that the gate held to a bound."""

    name: str  # with the columns whose groups are judged
    value: str  # with its interval, where it has one
    bound: str  # empty where it is only shown
    verdict: str  # held, broken, not computed, not applicable or shown
    optional: bool
    reason: str


class CardPower(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What so many blocks of rows can show of a gain, at a first try."""

    share: float  # wanted probability that a true gain passes
    blocks: int
    block: str
    standard_error: float  # of the gain, over so many blocks
    confidence: float
    min_gain: float
    bound: float
    min_blocks: int = 2
    detectable: float  # smallest true gain that passes with that probability
    observed: float
    blocks_needed: int | None  # for a true gain as large as the observed one; None: no number of them suffices


class CardQuality(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the gate measured, on rows that neither model was trained on."""

    metric: str
    rows: int
    first: str  # ISO 8601, UTC
    last: str
    metrics: dict[str, float]
    reference: str  # "champion (version 3)" or "naive baseline"
    reference_metrics: dict[str, float]
    naive_metrics: dict[str, float]
    naive: str  # what the naive answer is
    interval: CardInterval | None = None
    within_blocks: CardInterval | None = None  # of the same gain, if the same blocks came again with other rows
    power: CardPower | None = None
    power_in_words: str = ""
    guardrails: tuple[CardGuardrail, ...] = ()  # none in cards of earlier engines
    slices: tuple[CardSlice, ...] = ()
    latency_ms: float = 0.0
    parity_difference: float = 0.0
    tries: float = 1.0


class ModelCard(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One version's card."""

    model: str
    version: int
    written_at: str  # ISO 8601, UTC
    description: str
    owner: str
    words: str = ""  # Markdown of people, from the file that `card` in defs.yaml names
    task: str
    target: str
    target_unit: str | None = None
    family: str
    params: dict[str, Any]
    threshold: float | None = None
    threshold_choice: str = ""
    features: tuple[Feature, ...]
    labels: dict[str, float]  # summary of the label in the training set
    provenance: Provenance
    quality: CardQuality | None = None  # None where no row was new to both
    passed: bool  # the gate's verdict
    reasons: tuple[str, ...]
    calibration: Calibration | None = None
    recalibrated: Recalibrated | None = None  # from which version its probabilities alone differ
    reliability: tuple[Reliability, ...] = ()
    conformal: Conformal | None = None
    suspects: tuple[str, ...] = ()  # what may know the label
    release: str  # who may put it into service, in words
    limits: tuple[str, ...] = ()  # what is watched once it serves, in words
    log: str = ""  # what of its answers is logged, in words
    digest: str
    model_digest: str
    links: dict[str, str]  # pages of the registry and the run


def card_path(store: ReleaseStore, model: str, version: int) -> Path:
    """File of a version's card (raises ValueError for an invalid name)."""
    if not is_name(model):
        raise ValueError(f"model name: wanted lower-case letters, digits, _ or -, found {model[:80]!r}")
    return store.folder / "cards" / model / f"{version}.json"


def store_card(store: ReleaseStore, card: ModelCard) -> None:
    """Keep a card beside the bundles."""
    path = card_path(store, card.model, card.version)
    replace_file(path, document_bytes(card))


def load_card(store: ReleaseStore, model: str, version: int) -> ModelCard:
    """Read a card.

    Raises
    ------
    LookupError
        When there is none, with the versions that have one.
    DocumentUnreadable
        When its file is damaged.
    """
    path = card_path(store, model, version)
    try:
        return read_document(path, ModelCard, "a model card", "restore it from a backup")
    except FileNotFoundError:
        known = ", ".join(str(number) for number in carded_versions(store, model)) or "none"
        raise LookupError(
            f"{model}: version {version} has no card; versions with one: {known}. Cards are written when a version is "
            "registered"
        ) from None


def carded_versions(store: ReleaseStore, model: str) -> list[int]:
    """Versions of a model that have a card."""
    return sorted(int(path.stem) for path in card_path(store, model, 0).parent.glob("*.json") if path.stem.isdigit())
