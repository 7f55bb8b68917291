"""What is to be promoted to another environment, and whether it may be: gate, digests, scores, contract, views."""

import re
from dataclasses import dataclass

import msgspec

from ml_platform.features.online.open import open_online_store
from ml_platform.inference.scorer import Scorer
from ml_platform.promotion.reconcile import versions_of
from ml_platform.registry.digests import contract_digest
from ml_platform.registry.manifest import Endpoint, Golden, Manifest, champion_target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stage_names import CHALLENGER, CHAMPION
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings

_REFERENCE = re.compile(r"(?P<model>[a-z][a-z0-9_-]{1,62})(?:@(?P<which>\w+))?")


class NotPromotable(RuntimeError):
    """A version that another environment does not take: what was wanted, what was found, what to do."""


@dataclass(frozen=True)
class Candidate:
    """A registered version with all that goes along with it.

    Attributes
    ----------
    model, version, digest
        Which one it is, in the environment that it comes from.
    manifest, golden, files
        Its bundle, verified.
    judged
        The bundle that the gate judged, where this is its refit and the store still has that; else None.
    tags, description
        Of the version in the registry.
    """

    model: str
    version: int
    digest: str
    manifest: Manifest
    golden: Golden
    files: dict[str, bytes]
    judged: dict[str, bytes] | None
    tags: dict[str, str]
    description: str


def parse_reference(text: str) -> tuple[str, str]:
    """Return the model and which version is meant: an alias or a number.

    Raises
    ------
    ValueError
        When it is no reference.

    Examples
    --------
    >>> parse_reference("flight_delay@challenger"), parse_reference("flight_delay@4"), parse_reference("flight_delay")
    (('flight_delay', 'challenger'), ('flight_delay', '4'), ('flight_delay', 'champion'))
    """
    match = _REFERENCE.fullmatch(text)
    which = (match["which"] or CHAMPION) if match else ""
    if match is None or not (which in (CHAMPION, CHALLENGER) or which.isdigit()):
        raise ValueError(f"wanted a model and a version, as my_model@champion, @challenger or @4; found '{text}'")
    return match["model"], which


def find_candidate(source: Settings, reference: str, *, overrule_gate: bool = False) -> Candidate:
    """Find a version in the environment that it is promoted from, and verify it.

    Its digests are computed again, and it must give its recorded scores on the rows in the bundle.

    Raises
    ------
    LookupError
        When there is no such version.
    BundleRefused
        When its bundle is damaged or does not give its scores.
    NotPromotable
        When the gate refused it, unless that is overruled, or registry and store disagree on what it is.
    """
    model, which = parse_reference(reference)
    store, tracker = ReleaseStore(source.releases_dir), Tracker(source)
    entries = {int(entry.version): entry for entry in versions_of(tracker, model)}
    version = version_number(store, tracker, model, which)
    if version not in entries:
        raise LookupError(f"{model}: no version {version} is registered; there are {sorted(entries) or 'none'}")
    tags = dict(entries[version].tags)
    digest = store.versions(model).get(version)
    if digest is None or digest != tags.get("bundle_digest"):
        raise NotPromotable(
            f"{model} version {version}: the registry names bundle {tags.get('bundle_digest', 'none')[:12]}, the "
            f"release store {(digest or 'none')[:12]}; register it again, or promote another version"
        )
    if tags.get("gate") != "passed" and not overrule_gate:
        raise NotPromotable(
            f"{model} version {version}: the gate's verdict is '{tags.get('gate', 'none')}', wanted 'passed'; train a "
            "better one, or overrule the gate by --overrule-gate"
        )
    manifest = Scorer.load(store.bundle_path(digest)).manifest
    files = store.read_bundle(digest)
    judged = manifest.provenance.judged
    has_judged = judged is not None and store.bundle_path(judged.digest).is_dir()
    return Candidate(
        model=model,
        version=version,
        digest=digest,
        manifest=manifest,
        golden=msgspec.json.decode(files["golden.json"], type=Golden),
        files=files,
        judged=store.read_bundle(judged.digest) if judged and has_judged else None,
        tags=tags,
        description=entries[version].description or "",
    )


def version_number(store: ReleaseStore, tracker: Tracker, model: str, which: str) -> int:
    """The version that an alias or a number means, whether or not that number is registered (raises LookupError)."""
    if which.isdigit():
        return int(which)
    if which == CHAMPION:
        endpoint = store.endpoint(model)
        if endpoint is None:
            raise LookupError(f"{model}: nothing serves, so there is no champion; name a version, as {model}@1")
        return champion_target(endpoint).version
    if not versions_of(tracker, model):
        raise LookupError(f"{model}: no version is registered")
    aliases = tracker.client.get_registered_model(model).aliases
    if CHALLENGER not in aliases:
        raise LookupError(f"{model}: there is no challenger: the newest version has served; name one, as {model}@1")
    return int(aliases[CHALLENGER])


def check_fits(candidate: Candidate, target: Settings, current: Endpoint | None, *, contract_changes: bool) -> None:
    """Check that a candidate fits an environment: what its clients send, and what its online store holds.

    Parameters
    ----------
    candidate
        The version.
    target
        The environment's settings.
    current
        What serves there; None when nothing does.
    contract_changes
        Whether clients there know that inputs or answers change.

    Raises
    ------
    NotPromotable
        When inputs or classes differ from those of the version that serves there, or a view that it looks up is missing
        in the online store there, or of another definition.
    """
    champion = current.champion if current else None
    if champion is not None and not contract_changes:
        serving = ReleaseStore(target.releases_dir).load_manifest(champion.digest)
        if (ours := contract_digest(candidate.manifest)) != (theirs := contract_digest(serving)):
            raise NotPromotable(
                f"{candidate.model} version {candidate.version} has another contract of inputs and answers "
                f"({ours[:12]}) than version {champion.version}, which serves there ({theirs[:12]}); tell its clients, "
                "then promote it by --contract-changes"
            )
    if not candidate.manifest.lookups:
        return
    with open_online_store(target.online_uri) as online:
        hashes = {lookup.view: online.view_hash(lookup.view) for lookup in candidate.manifest.lookups}
    for lookup in candidate.manifest.lookups:
        stored_hash = hashes[lookup.view]
        if stored_hash != lookup.view_hash:
            there = stored_hash[:12] if stored_hash else "none of it"
            raise NotPromotable(
                f"{candidate.model} version {candidate.version} looks up the view {lookup.view} by its definition "
                f"{lookup.view_hash[:12]}, the online store there has {there}; bring the same code there and "
                f"materialise online/{lookup.view}, then promote again"
            )
