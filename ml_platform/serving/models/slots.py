"""What a worker serves: immutable objects, replaced by one assignment and read once per request."""

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ml_platform.features.online.store import Definition, OnlineStore
from ml_platform.inference.log_policy import LogPolicyFilter
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.feature_services import FeatureService
from ml_platform.registry.input_contract import Contract
from ml_platform.registry.manifest import Endpoint, Feature, Input, Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.version_inputs import VersionInputs, differs
from ml_platform.serving.inputs.feature_lookup import Lookups
from ml_platform.serving.inputs.request_decoder import RowDecoder, decoder_of
from ml_platform.serving.inputs.shared_inputs import shared_inputs
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed
from ml_platform.serving.inputs.traffic_key import TrafficKey
from ml_platform.serving.models.intervals import Intervals

_TOLD = 10  # names in a message

logger = logging.getLogger("serving")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of one model, loaded, checked and warm."""

    name: str
    version: int
    digest: str
    manifest: Manifest
    scorer: Scorer
    decoder: RowDecoder
    lookups: Lookups
    columns: tuple[str, ...]
    contract: Contract | None  # violations that are answered with a flag, and defaults for nulls
    own_features: tuple[tuple[int, Feature], ...]  # those not looked up, with their positions in the matrix
    log_filter: LogPolicyFilter | None  # None: every request is logged in full
    intervals: Intervals | None = None  # None: the version has no numbers for them

    def beside(self, others: "Sequence[ServedModel]") -> "ServedModel":
        """This version, passing over what only the others read of a request."""
        own = {field.name for field in self.manifest.inputs}
        theirs = sorted({field.name for one in others for field in one.manifest.inputs} - own)
        if self.decoder.others == tuple(theirs):
            return self
        return replace(self, decoder=decoder_of(self.manifest, theirs))

    @classmethod
    def load(
        cls,
        store: ReleaseStore,
        online: OnlineStore,
        target: Target,
        model: str,
        *,
        keys_dir: Path,
        fallback: Literal["fail", "nulls"] = "fail",
        unverified: bool = False,
    ) -> "ServedModel":
        """Load a bundle, replay its golden rows and compare its feature views with the online store's.

        With `unverified`, an online store that cannot be read is no error: the model answers with nulls until it can.

        Raises
        ------
        BundleRefused
            When the bundle is damaged or does not reproduce its golden rows.
        LookupError
            When the release store does not have the bundle, or it is another model's.
        ViewsDiffer
            When the online store does not hold the feature views that the model was trained on.
        OnlineStoreFailed
            When the online store cannot be read, unless `unverified`.
        """
        path = store.bundle_path(target.digest)
        if not path.is_dir():
            raise LookupError(
                f"bundle {target.digest[:12]} is not in the release store; publish version {target.version} again"
            )
        scorer = Scorer.load(path)
        manifest = scorer.manifest
        if manifest.model != model:
            raise LookupError(f"bundle {target.digest[:12]} is a model '{manifest.model}', not '{model}'")
        lookups = Lookups(manifest, online, fallback)
        try:
            lookups.check()
        except OnlineStoreFailed:
            if not unverified:
                raise
            lookups.unverified = True
        columns = tuple(feature.name for feature in manifest.features)
        looked_up = {column for view in lookups.views for _, column in view.columns}
        return cls(
            name=model,
            version=target.version,
            digest=target.digest,
            manifest=manifest,
            scorer=scorer,
            decoder=decoder_of(manifest),
            lookups=lookups,
            columns=columns,
            contract=Contract.flagging(manifest.inputs),
            own_features=tuple(
                (place, one) for place, one in enumerate(manifest.features) if one.name not in looked_up
            ),
            log_filter=LogPolicyFilter.of(manifest, keys_dir),
            intervals=_intervals(store, target.digest, manifest),
        )


def _intervals(store: ReleaseStore, digest: str, manifest: Manifest) -> Intervals | None:
    """A version's intervals; those of its manifest where its own document is damaged, which must not keep it back."""
    try:
        return Intervals.load(store, digest, manifest)
    except (OSError, ValueError) as error:
        logger.error("%s: intervals as of the holdout, for the adapted ones: %s", manifest.model, error)
        return None if manifest.conformal is None else Intervals(manifest, manifest.conformal, adapted=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the newest release of a model does not take traffic."""

    revision: int  # 0: of a document that cannot be read
    reason: str
    since: datetime
    version: int | None = None  # the one that failed its checks; None when it was not one version


@dataclass(frozen=True, slots=True)
class EndpointState:
    """One endpoint: its document and the versions that answer for it.

    `endpoint` is the document in force, from which `served` was loaded; `refused` says why a newer one failed its
    checks. Nothing is served while `served` is empty.
    """

    name: str
    endpoint: Endpoint | None
    served: tuple[ServedModel, ...] = ()
    bounds: tuple[float, ...] = ()  # upper bound of each version's share of the traffic, the last one 1
    refused: Refusal | None = None
    shadows: tuple[ServedModel, ...] = ()  # scored and logged, never answered
    shadow_refused: Refusal | None = None
    key: TrafficKey | None = None  # None: one version answers all, or the request's id chooses
    inputs: tuple[Input, ...] = ()  # of all versions, those of the first first
    is_mixed: bool = False  # whether some versions read the same request differently

    @classmethod
    def of(
        cls,
        endpoint: Endpoint,
        served: tuple[ServedModel, ...],
        shadows: tuple[ServedModel, ...] = (),
        shadow_refused: Refusal | None = None,
    ) -> "EndpointState":
        """Make the slot of loaded versions, which share the traffic as the document says."""
        shares = [target.share for target in live_targets(endpoint)]
        total, bounds = 0.0, []
        for share in shares:
            total += share
            bounds.append(total)
        loaded = (*served, *shadows)
        by_version = _inputs_of(served, shadows)
        fields = [{one.name: one for one in version.inputs} for version in by_version]
        return cls(
            name=endpoint.name,
            endpoint=endpoint,
            served=tuple(model.beside(loaded) for model in served),
            bounds=tuple(bound / total for bound in bounds),
            shadows=tuple(model.beside(loaded) for model in shadows),
            shadow_refused=shadow_refused,
            key=_traffic_key(endpoint, served),
            inputs=shared_inputs(by_version),
            is_mixed=any(
                one.keys() != fields[0].keys() or any(differs(field, fields[0][name]) for name, field in one.items())
                for one in fields
            ),
        )

    def version(self, number: int) -> ServedModel | None:
        """A loaded version by its number, live or shadow; None when the endpoint names no such version."""
        return next((model for model in (*self.served, *self.shadows) if model.version == number), None)

    def inputs_for(self, version: int | None) -> Sequence[Input]:
        """What a request may have: of all versions, those of the one that is asked for, or of the first, first."""
        model = None if version is None else self.version(version)
        if model is None:
            return self.inputs
        if not self.is_mixed:
            return model.manifest.inputs
        versions = _inputs_of(self.served, self.shadows)
        return shared_inputs(sorted(versions, key=lambda one: one.version != version))

    @property
    def unverified(self) -> bool:
        """Whether some version was loaded without comparing its views with the online store's."""
        return any(model.lookups.unverified for model in (*self.served, *self.shadows))

    def check_views(self) -> None:
        """Compare the online store's views with what the served versions were trained on (raises ViewsDiffer)."""
        for model in self.served:
            model.lookups.check()

    def key_of(self, body: bytes) -> str | None:
        """The value of the first row that chooses its version, so that the same value always gets the same one."""
        return None if self.key is None else self.key.of(body)

    def choose(self, key: str | None) -> ServedModel:
        """Choose the version that answers a request: always the same for a key, and each by its share over all keys."""
        if len(self.served) == 1 or key is None:
            return self.served[0]
        point = zlib.crc32(key.encode()) / 2**32
        return next(model for model, bound in zip(self.served, self.bounds, strict=True) if point < bound)


def _inputs_of(served: Sequence[ServedModel], shadows: Sequence[ServedModel]) -> list[VersionInputs]:
    return [
        *(VersionInputs(model.version, model.manifest.inputs) for model in served),
        *(VersionInputs(model.version, model.manifest.inputs, is_live=False) for model in shadows),
    ]


def _traffic_key(endpoint: Endpoint, served: Sequence[ServedModel]) -> TrafficKey | None:
    """The document's key, else the first id that a version has: what older versions answer keeps its version."""
    if len(served) < 2:
        return None
    ids = (model.manifest.id for model in served)
    name = endpoint.key or next((one for one in ids if one is not None), None)
    fields = (field for model in served for field in model.manifest.inputs if field.name == name)
    return next((TrafficKey(field) for field in fields), None)


@dataclass(slots=True)
class ServingState:
    """All slots by model name. `slots` is replaced whole by the watcher, never changed."""

    slots: dict[str, EndpointState]
    checked_at: datetime | None = None  # when the release store was last read without an error
    trouble: str | None = None  # why it could not be read
    retired: Mapping[str, str] = field(default_factory=dict)  # endpoints of retired models → since when (UTC)
    views: Mapping[str, Definition] = field(default_factory=dict)  # feature views with known columns, as last seen
    services: Mapping[str, FeatureService] = field(default_factory=dict)  # feature services that are published
    services_refused: Mapping[str, str] = field(default_factory=dict)  # why a service's newest document is not served

    def names(self) -> list[str]:
        """Models that have an endpoint document."""
        return sorted(self.slots)

    def retirement(self, name: str) -> str | None:
        """Say that a model was retired; None when it was not.

        Examples
        --------
        >>> ServingState({}, retired={"churn": "2024-06-01T12:00:00.000Z"}).retirement("churn")
        "model 'churn' was retired on 2024-06-01 and is no longer served"
        """
        since = self.retired.get(name)
        return None if since is None else f"model '{name}' was retired on {since[:10]} and is no longer served"

    def known(self) -> str:
        """List these names for a message: the first ten, and how many more there are.

        Examples
        --------
        >>> ServingState({name: EndpointState(name, None) for name in "abcdefghijkl"}).known()
        'a, b, c, d, e, f, g, h, i, j and 2 more'
        """
        names = self.names()
        more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
        return ", ".join(names[:_TOLD]) + more or "none yet"


def live_targets(endpoint: Endpoint) -> tuple[Target, ...]:
    """Targets that answer requests."""
    return tuple(target for target in endpoint.targets if target.mode == "live" and target.share > 0)


def shadow_targets(endpoint: Endpoint) -> tuple[Target, ...]:
    """Targets that are scored and logged but never answer."""
    return tuple(target for target in endpoint.targets if target.mode == "shadow")


def refusal(revision: int, reason: str, version: int | None = None) -> Refusal:
    """Make a refusal as of now."""
    return Refusal(revision, reason, datetime.now(UTC), version)
