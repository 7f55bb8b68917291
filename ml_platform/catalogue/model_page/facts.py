"""Gathers what the page of a model says: from its declaration, its versions, their cards, and what it did lately."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.catalogue.model_page.document import Event, Group, ModelPage
from ml_platform.catalogue.model_page.week import week_of
from ml_platform.catalogue.model_page.words import (
    LOWER_IS_BETTER,
    Subject,
    metric_in_words,
    outcomes_of,
    quality_in_words,
    things_of,
)
from ml_platform.catalogue.pages import short, when
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Endpoint, Manifest, describe_targets
from ml_platform.registry.model_card import ModelCard, load_card
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import duration

MOST_GROUPS, MOST_CHANGES, MOST_LOOKED_AT, MOST_LISTED = 5, 8, 6, 12
_RUN = re.compile(r"\bdagster run ([0-9a-f]{8})[0-9a-f-]*")
REVIEWED = "reviewed"  # tag of a model: the day on which people last looked at it


@dataclass(frozen=True)
class _Version:
    """The version that the page speaks of."""

    number: int
    manifest: Manifest
    card: ModelCard | None


def model_page(
    settings: Settings,
    name: str,
    spec: ModelSpec | None,
    *,
    folder: Path | None = None,
    now: datetime | None = None,
) -> ModelPage:
    """Write down what the page of a model says.

    Parameters
    ----------
    settings
        Where release store and lake are.
    name
        Of the model.
    spec
        As declared; None for a model that is released but declared no more.
    folder
        Of its `defs.yaml`, beside which the file of `card` is.
    now
        End of the week that the page speaks of; the present by default.

    Raises
    ------
    LookupError
        When there is neither a declaration nor a version.
    """
    now = now or datetime.now(UTC)
    store = ReleaseStore(settings.releases_dir)
    problems: list[str] = []
    document = _document(store, name, problems)
    version = _version(store, name, document, problems)
    if spec is None and version is None:
        raise LookupError(
            f"there is no model '{name}': `ml-platform catalogue search --kind model` lists those that there are"
        )
    described = spec or (version.manifest if version else None)
    assert described is not None
    manifest = version.manifest if version else None
    subject = _subject(spec, manifest)
    groups, groups_say = _groups(version, subject)
    return ModelPage(
        model=name,
        made_at=now.isoformat(),
        title=name.replace("_", " "),
        description=" ".join(described.description.split()),
        state=_state(document, version),
        is_serving=bool(document and document.targets),
        predicts=tuple(_predicts(spec, manifest, subject)),
        quality=tuple(_quality(store, version, subject, problems)),
        measured=_measured(version),
        groups=groups,
        groups_say=groups_say,
        looks_at=_looks_at(manifest),
        limits=tuple(_limits(spec, manifest, subject)),
        words=_words(spec, folder, version),
        week=tuple(week_of(settings, name, store, document, subject, now, problems)),
        changes=tuple(_changes(store, name)),
        owner=described.owner,
        review=_review(store, name, spec, document, now),
        problems=tuple(problems),
    )


def _document(store: ReleaseStore, name: str, problems: list[str]) -> Endpoint | None:
    try:
        return store.document(name)
    except (DocumentUnreadable, ValueError) as error:
        problems.append(str(error))
        return None


def _version(store: ReleaseStore, name: str, document: Endpoint | None, problems: list[str]) -> _Version | None:
    """What serves; else the newest that can be read."""
    versions = store.versions(name)
    champion = document.champion if document else None
    numbers = [*([champion.version] if champion else []), *sorted(versions, reverse=True)]
    for number in dict.fromkeys(numbers):
        try:
            manifest = store.load_manifest(versions[number])
        except (LookupError, BundleRefused) as error:
            problems.append(f"version {number}: {str(error).splitlines()[0]}")
            continue
        card = None
        with suppress(LookupError):
            try:
                card = load_card(store, name, number)
            except DocumentUnreadable as error:
                problems.append(str(error))
        return _Version(number, manifest, card)
    return None


def _subject(spec: ModelSpec | None, manifest: Manifest | None) -> Subject:
    of = spec or manifest
    assert of is not None
    return Subject(of.task, things_of(of.id), of.target.replace("_", " "), of.target_unit or "", of.quantile)


def _state(document: Endpoint | None, version: _Version | None) -> str:
    if version is None:
        return "Not trained yet: there is no version of it."
    if document is None:
        return f"Not in service: version {version.number} is registered, and none was ever released."
    if not document.targets:
        return f"Out of service since {when(document.updated_at)}: {document.reason}"
    return f"In service: {describe_targets(document.targets)}, since {when(document.updated_at)}."


def _predicts(spec: ModelSpec | None, manifest: Manifest | None, subject: Subject) -> Iterator[str]:
    unit = f" in {subject.unit}" if subject.unit else ""
    match subject.task:
        case "binary":
            yield f"For each of the {subject.things}: is it {subject.target}, and how probable is that (0 to 100 %)?"
            threshold = manifest.threshold if manifest else None
            if threshold is not None:
                yield f"It says yes from a probability of {100 * threshold:.0f} % on."
        case "multiclass":
            yield f"For each of the {subject.things}: which {subject.target} is it, and how probable is each?"
            if manifest and manifest.classes:
                listed = ", ".join(map(str, manifest.classes[:MOST_LISTED]))
                more = len(manifest.classes) - MOST_LISTED
                yield f"The classes: {listed}{f' and {more} more' if more > 0 else ''}."
        case _ if subject.quantile is not None:
            yield (
                f"For each of the {subject.things}: a bound on {subject.target}{unit} that should hold in "
                f"{100 * subject.quantile:.0f} of 100."
            )
        case _:
            yield f"For each of the {subject.things}: {subject.target}{unit}, as a number."
    inputs = [field for field in (spec.inputs if spec else manifest.inputs if manifest else ()) if field.required]
    if inputs:
        asked = "; ".join(field.description.rstrip(".") or field.name.replace("_", " ") for field in inputs[:8])
        yield f"It has to be told: {asked}{' and more' if len(inputs) > 8 else ''}."
    if spec is not None and spec.lookups:
        views = ", ".join(lookup.view.replace("_", " ") for lookup in spec.lookups[:8])
        yield f"The platform adds by itself what is known at that moment of: {views}."


def _quality(store: ReleaseStore, version: _Version | None, subject: Subject, problems: list[str]) -> list[str]:
    if version is None:
        return ["Nothing has been measured: the model is not trained yet."]
    manifest, card = version.manifest, version.card
    measured = manifest
    if manifest.recalibrated is not None:  # the trained one has its reliability on the rows of its metrics
        try:
            measured = store.load_manifest(manifest.recalibrated.base_digest)
        except (LookupError, BundleRefused) as error:
            problems.append(f"version {manifest.recalibrated.base_version}: {str(error).splitlines()[0]}")
    if not measured.metrics:
        return ["No row was new to this version, so nothing could be measured."]
    quality = card.quality if card else None
    said = quality_in_words(
        subject,
        measured.metrics,
        outcomes=outcomes_of(measured.metrics, measured.reliability) if subject.task == "binary" else None,
        conformal=manifest.conformal,
        naive=quality.naive_metrics if quality else None,
        naive_words=quality.naive if quality else "",
    )
    if quality is not None and quality.interval is not None:
        gain = quality.interval
        sure = "certainly better than" if gain.lower > 0 else "not certainly better than"
        said.append(
            f"Over {gain.blocks} {gain.block}s it was {sure} {_reference(quality.reference)} "
            f"({gain.confidence:.0%} confidence)."
        )
    return said


def _reference(name: str) -> str:
    return "the simplest answer" if name == "naive baseline" else name.replace("champion", "the one that served before")


def _measured(version: _Version | None) -> str:
    quality = version.card.quality if version and version.card else None
    if version is None or quality is None:
        return "" if version is None else f"Version {version.number}; its card does not say on which rows."
    return (
        f"Measured on {quality.rows:,} rows that the model had never seen, {quality.first[:10]} to "
        f"{quality.last[:10]}. Version {version.number}."
    )


def _groups(version: _Version | None, subject: Subject) -> tuple[tuple[Group, ...], str]:
    quality = version.card.quality if version and version.card else None
    if quality is not None and not quality.slices and any(one.name.startswith("slices") for one in quality.guardrails):
        return (), (
            "Groups are to be compared, and none had enough measured rows, so it is not known where it is weaker "
            "(promotion.slices and min_slice_rows in defs.yaml)."
        )
    if quality is None or not quality.slices:
        return (), "No groups were compared, so nobody has looked where it is weaker (promotion.slices in defs.yaml)."
    sign = 1.0 if quality.metric in LOWER_IS_BETTER else -1.0
    ranked = sorted(quality.slices, key=lambda one: -sign * one.metric)
    values = [one.metric for one in quality.slices]
    spread = max(values) - min(values)
    best = min(values) if sign > 0 else max(values)
    groups = tuple(
        Group(
            name=f"{one.column.replace('_', ' ')} {one.value}",
            rows=one.rows,
            says=metric_in_words(quality.metric, one.metric, subject),
            share=abs(one.metric - best) / spread if spread else 0.0,
        )
        for one in ranked[:MOST_GROUPS]
    )
    whole = quality.metrics.get(quality.metric)
    overall = f"All {subject.things}: {metric_in_words(quality.metric, whole, subject)}. " if whole is not None else ""
    failed = [f"{one.column} {one.value}" for one in quality.slices if not one.passed]
    lost = f" It lost on {', '.join(failed)}." if failed else ""
    return groups, f"{overall}The weakest of {len(quality.slices)} groups first.{lost}"


def _looks_at(manifest: Manifest | None) -> tuple[tuple[str, float], ...]:
    if manifest is None:
        return ()
    ranked = sorted(manifest.features, key=lambda feature: -feature.importance)
    described = {field.name: field.description for field in manifest.inputs}
    described |= {field.name: field.description for field in manifest.derived}
    return tuple(
        (
            short((one.description or described.get(one.name) or one.name.replace("_", " ")).rstrip("."), 110),
            one.importance,
        )
        for one in ranked[:MOST_LOOKED_AT]
        if one.importance > 0
    )


def _limits(spec: ModelSpec | None, manifest: Manifest | None, subject: Subject) -> Iterator[str]:
    if manifest is not None:
        made_of = manifest.provenance
        if made_of.imported is not None:
            yield (
                f"It was not trained here but imported from {made_of.imported.source} by {made_of.imported.by}: which "
                "rows it has learned from is not known here."
            )
        else:
            yield (
                f"It has learned from {made_of.training_rows:,} rows of {made_of.trained_from[:10]} to "
                f"{made_of.trained_until[:10]}. What is new since then it knows only as far as it is told."
            )
        if subject.task != "regression" and manifest.calibration is None:
            yield "Its probabilities are not calibrated: use them to rank, not as chances."
    for field in spec.inputs if spec else ():
        name = field.description.rstrip(".") or field.name.replace("_", " ")
        then = "is answered with a warning" if field.on_violation == "flag" else "is refused"
        if field.allowed:
            listed = ", ".join(map(str, field.allowed[:MOST_LISTED]))
            more = len(field.allowed) - MOST_LISTED
            yield f"{name}: only {listed}{f' and {more} more' if more > 0 else ''}; anything else {then}."
        elif field.minimum is not None or field.maximum is not None:
            bounds = [
                *([f"from {field.minimum:,.10g}"] if field.minimum is not None else []),
                *([f"up to {field.maximum:,.10g}"] if field.maximum is not None else []),
                *([field.unit] if field.unit else []),
            ]
            yield f"{name}: {' '.join(bounds)}; anything else {then}."
    if spec is not None:
        yield "Whether an answer was right is known only later: how good the newest ones are, nobody can tell."
    yield "It is an estimate from the past. Do not use it for another purpose, or other people, than it was made for."


def _words(spec: ModelSpec | None, folder: Path | None, version: _Version | None) -> str:
    if spec is not None and spec.card and folder is not None:
        with suppress(OSError):
            return (folder / spec.card).read_text(encoding="utf-8").strip()
    return version.card.words.strip() if version and version.card else ""


def _changes(store: ReleaseStore, name: str) -> Iterator[Event]:
    try:
        history = sorted(store.history(name), key=lambda one: -one.revision)
    except (DocumentUnreadable, ValueError):
        return
    for one in history[:MOST_CHANGES]:
        yield Event(
            at=one.updated_at,
            what=f"{one.action[:1].upper()}{one.action[1:]}: {describe_targets(one.targets)}",
            by=_RUN.sub(lambda run: f"the platform (run {run[1]})", one.updated_by),
            why=_why(one.reason),
        )


def _why(reason: str) -> str:
    """The reason of a release, without the numbers of the gate, which the quality has in words."""
    if reason.startswith("Promote: the challenger passes the gate"):
        return "It did better on rows that it had never seen than what it had to beat, and passed every other check."
    return short(reason, 240)


def _review(store: ReleaseStore, name: str, spec: ModelSpec | None, document: Endpoint | None, now: datetime) -> str:
    tags: Mapping[str, str] = {}
    with suppress(DocumentUnreadable, ValueError):
        tags = store.notes.load(name).tags
    how = f"note one by `ml-platform models tag {name} --set {REVIEWED}={now:%Y-%m-%d}`"
    last: datetime | None = None
    if reviewed := tags.get(REVIEWED):
        try:
            last = datetime.fromisoformat(reviewed)
            last = last if last.tzinfo else last.replace(tzinfo=UTC)
        except ValueError:
            return f"The tag '{REVIEWED}' is no day: '{short(reviewed, 40)}'; {how}."
    if spec is None or spec.review_every is None:
        told = f"Last reviewed on {last:%Y-%m-%d}. " if last else ""
        return f"{told}No review is planned: set review_every in its defs.yaml."
    if last is None and document is None:
        return f"Every {duration(spec.review_every)}, from its first release on."
    from_day = last or datetime.fromisoformat(document.updated_at if document else now.isoformat())
    due = from_day + spec.review_every
    what = f"the review of {last:%Y-%m-%d}" if last else "what serves was last changed"
    overdue = f"overdue since {due:%Y-%m-%d}" if due < now else f"due on {due:%Y-%m-%d}"
    return f"The next review is {overdue}, {duration(spec.review_every)} after {what}; {how}."
