"""One version, given logged rows: their features as they were served, where these mean the same to it.

What the version that answered a row makes in the same way is taken as it was recorded. Derived features of its own are
computed from the logged inputs. Look-ups that were not served are looked up in the lake as of the request's instant.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ml_platform.features.point_in_time.lookup import feature_column
from ml_platform.features.point_in_time.lookup_index import LookupIndex
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions, unlike_features
from ml_platform.features.views.recorded_definitions import ViewChanged
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.frame_scorer import FrameScorer, ScoringOptions
from ml_platform.inference.ingest_log import FIXED_COLUMNS
from ml_platform.inference.log_policy import not_reproducible, unwatched
from ml_platform.inference.matrix import FeatureEncoder, feature_columns
from ml_platform.inference.recorded_columns import of_features
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.logged_inputs import logged_inputs
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Feature, Manifest
from ml_platform.registry.releases import ReleaseStore

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer

AS_OF = "as_of"  # the logged instant of a row
_SHOWN = 5


class NotReplayable(ValueError):
    """Rows that a version cannot be given: the message is the reason."""


@dataclass(frozen=True)
class Answers:
    """What a version answers to some rows.

    Attributes
    ----------
    scores
        (rows,), or (rows × classes); NaN for what it refuses.
    refused
        Whether each row is refused (rows,).
    refusals, flagged
        Values by `field: kind`.
    """

    scores: np.ndarray
    refused: np.ndarray
    refusals: Counter[str]
    flagged: Counter[str]


@dataclass(frozen=True)
class _Plan:
    """How rows that one bundle answered are given to the version."""

    recorded: tuple[str, ...]  # features that are taken as they were served
    scorer: FrameScorer | None  # None: all are
    hidden: frozenset[str] = frozenset()


class Contestant:
    """A version that answers logged rows.

    Parameters
    ----------
    scorer
        Its bundle.
    lake, store, views
        For what the log does not have.
    """

    def __init__(self, scorer: "Scorer", lake: Lake, store: ReleaseStore, views: Mapping[str, FeatureView]) -> None:
        self.scorer, self.manifest = scorer, scorer.manifest
        self._lake, self._store, self._views = lake, store, views
        self._plans: dict[str, _Plan | NotReplayable] = {}
        self._indexes: dict[tuple[int, tuple[str, ...]], LookupIndex] = {}
        self.notes: dict[str, None] = {}

    def answer(self, rows: pl.DataFrame, served_by: str) -> Answers:
        """Answer rows of the log.

        Parameters
        ----------
        rows
            Of the log's table.
        served_by
            Digest of the bundle that answered them.

        Raises
        ------
        NotReplayable
            When it cannot be given its features of these rows.
        """
        plan = self._plan(served_by)
        if plan.scorer is None:
            return self._as_served(rows)
        unlike: list[tuple[int, str]] = []
        inputs = logged_inputs(rows.get_column("inputs"), self.manifest.inputs, hidden=plan.hidden, unlike=unlike)
        features = [feature for feature in self.manifest.features if feature.name in plan.recorded]
        served = of_features(rows, features, column=_logged)
        frame = inputs.with_columns(
            *_columns(served, features),
            rows.get_column(AS_OF),
        )
        scored = plan.scorer.score(frame)
        scores = np.full((rows.height, *scored.scores.shape[1:]), np.nan)
        places = scored.rows.get_column("__row").to_numpy()
        scores[places] = scored.scores
        refused = np.ones(rows.height, dtype=bool)
        refused[places] = False
        refusals = Counter(f"{one.field}: {one.kind}" for one in scored.refused)
        for row, field in unlike:
            refused[row], scores[row] = True, np.nan
            refusals[f"{field}: type"] += 1
        return Answers(scores, refused, refusals, Counter(f"{field}: {kind}" for field, kind in scored.flagged))

    def _as_served(self, rows: pl.DataFrame) -> Answers:
        features = self.manifest.features
        served = of_features(rows, features, column=_logged)
        frame = pl.DataFrame(_columns(served, features))
        scores = self.scorer.score(FeatureEncoder(features).transform(feature_columns(frame, features)))
        flags: Counter[str] = Counter()
        if "flags" in rows.columns:
            flagged = rows.select(pl.col("flags").explode()).drop_nulls().unnest("flags")
            flags.update(f"{field}: {kind}" for field, kind in flagged.select("field", "kind").iter_rows())
        return Answers(scores, np.zeros(rows.height, dtype=bool), Counter(), flags)

    def _plan(self, served_by: str) -> _Plan:
        if served_by not in self._plans:
            try:
                self._plans[served_by] = self._planned(served_by)
            except NotReplayable as error:
                self._plans[served_by] = error
        plan = self._plans[served_by]
        if isinstance(plan, NotReplayable):
            raise plan
        return plan

    def _planned(self, served_by: str) -> _Plan:
        try:
            served = self._store.load_manifest(served_by)
        except (LookupError, ValueError, BundleRefused) as error:
            raise NotReplayable(
                "the bundle that answered is gone, so nobody can say what its features meant"
            ) from error
        own = self.manifest
        names = {feature.name for feature in own.features}
        if hidden := sorted(unwatched(served) & ({one.name for one in own.inputs} | names) - {own.id}):
            raise NotReplayable(
                f"the inference log hides {_listed(hidden)}, which it needs (`inference_log` in defs.yaml)"
            )
        unlike = set(unlike_features(own, served))
        if not unlike and own.inputs == served.inputs:
            return _Plan(tuple(names), None)
        self._check_inputs(served)
        looked_up = {name for lookup in own.lookups for name in lookup.features}
        absent = tuple(sorted(looked_up & unlike))
        if absent:
            explanation = (
                f"{_listed(absent)}: not served with these requests, looked up in the lake as of each request's instant"
            )
            self.notes[explanation] = None
        indexes = self._looked_up(absent, served)
        options = ScoringOptions(own.as_of or AS_OF, now=datetime.now(UTC), where="the inference log")
        return _Plan(tuple(sorted(looked_up - unlike)), FrameScorer(self.scorer, indexes, options), unwatched(served))

    def _check_inputs(self, served: Manifest) -> None:
        sent = {one.name for one in served.inputs}
        never = [one for one in self.manifest.inputs if one.name not in sent]
        if required := [one.name for one in never if one.required and one.default is None]:
            raise NotReplayable(f"the log of these requests has no {_listed(required)}, which it requires")
        if never:
            self.notes[f"{_listed([one.name for one in never])}: never sent, so null or the default in every row"] = (
                None
            )

    def _looked_up(self, names: tuple[str, ...], served: Manifest) -> list[LookupIndex]:
        """Indexes of the features that were not served, of each look-up that has some."""
        if not names:
            return []
        lost = sorted(set(names) & not_reproducible(served))
        if lost:
            raise NotReplayable(f"the inference log hides what {_listed(lost)} would be looked up by")
        definitions = FeatureDefinitions.of_manifest  # the lake's rows count only if they mean what they meant
        try:
            resolved = definitions(self.manifest, self._views, timestamp=AS_OF).resolve(self._lake, self._views)
        except (ViewChanged, LookupError) as error:
            raise NotReplayable(f"{_listed(names)}: not served, and cannot be looked up: {error}") from error
        indexes = []
        for number, lookup in enumerate(resolved):
            wanted = tuple(name for name in lookup.features if feature_column(lookup.view, name) in names)
            if not wanted:
                continue
            if (number, wanted) not in self._indexes:
                self._indexes[number, wanted] = LookupIndex.point_in_time(replace(lookup, features=wanted))
            indexes.append(self._indexes[number, wanted])
        return indexes


def _logged(feature: str) -> str:
    return f"feature__{feature}" if feature in FIXED_COLUMNS else feature


def _columns(rows: pl.DataFrame, features: Sequence[Feature]) -> list[pl.Series]:
    """Logged columns of features, under their own names; nulls where no row has one."""
    columns = []
    for feature in features:
        kind = pl.String if feature.kind == "categorical" else pl.Float64
        nulls = pl.Series(feature.name, [None] * rows.height, dtype=kind)
        name = _logged(feature.name)
        columns.append(rows.get_column(name).alias(feature.name) if name in rows.columns else nulls)
    return columns


def _listed(names: "tuple[str, ...] | list[str]") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
