"""A model in a notebook: what it wants, what it answers, how it was trained and how it has done since."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.governance.audit import record_event
from ml_platform.inference.batch import score_frame
from ml_platform.inference.frame_scorer import ROW, FrameScorer, ScoredRows, ScoringOptions, answers
from ml_platform.inference.interval_columns import interval_columns
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.bound import bound_lake
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.trends import PERFORMANCE_TABLE, drift_history
from ml_platform.project import current_project
from ml_platform.promotion.declared import declared_model
from ml_platform.registry.manifest import Manifest, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.version_facts import all_facts
from ml_platform.scoring.model_reference import ModelReference
from ml_platform.scoring.version_parts import conformal_of, lookup_indexes, view_pins
from ml_platform.settings import Settings
from ml_platform.training.data.split import Parts, split_by_time

if TYPE_CHECKING:
    import pandas

CHUNK_ROWS = 50_000
_VERSIONS = {
    "version": pl.Int64, "stage": pl.String, "serving": pl.String, "family": pl.String, "metric": pl.String,
    "holdout": pl.Float64, "passed": pl.Boolean, "trained_from": pl.String, "trained_until": pl.String,
    "rows": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True)
class ModelHandle:
    """One version of a model; make it by `open_model`.

    Attributes
    ----------
    name, version
        Of the model, and of the version in the registry.
    manifest
        What serving knows about the version.
    """

    name: str
    version: int
    digest: str
    settings: Settings
    views: Mapping[str, FeatureView]

    @cached_property
    def scorer(self) -> Scorer:
        """The version's graph, checked against its digest."""
        return Scorer.load(ReleaseStore(self.settings.releases_dir).bundle_path(self.digest))

    @property
    def manifest(self) -> Manifest:
        """What serving knows about the version."""
        return self.scorer.manifest

    @property
    def inputs(self) -> pl.DataFrame:
        """What a request or a row has to have: name, type, whether it is required, description."""
        return pl.DataFrame(
            [{"input": one.name, "type": one.type, "required": one.required} for one in self.manifest.inputs],
            schema={"input": pl.String, "type": pl.String, "required": pl.Boolean},
        )

    @property
    def features(self) -> pl.DataFrame:
        """Columns of the matrix, the most important first: name, kind, source, share of the importance."""
        rows = [
            {"feature": one.name, "kind": one.kind, "source": one.source, "importance": one.importance}
            for one in self.manifest.features
        ]
        schema = {"feature": pl.String, "kind": pl.String, "source": pl.String, "importance": pl.Float64}
        return pl.DataFrame(rows, schema=schema).sort("importance", descending=True)

    def predict(
        self,
        rows: "pl.DataFrame | pandas.DataFrame",
        *,
        as_of: datetime | None = None,
        explain: int = 0,
        interval: float | None = None,
    ) -> pl.DataFrame:
        """Score rows as serving would answer requests with their values.

        Parameters
        ----------
        rows
            Inputs as columns; others are kept.
        as_of
            Instant (with a time zone) as of which rows without an instant of their own are scored; now when None.
        explain
            How many features of each row's explanation are added, as `base` and `explanation`.
        interval
            Level, from 0.5 to 0.99, of the intervals (`lower`, `upper`) or sets of classes (`prediction_set`) that are
            added.

        Returns
        -------
        polars.DataFrame
            The rows with `score`, `prediction` and `flags`, what broke the inputs' contract and is answered all the
            same; they are null, and `refused` says why, where serving would refuse.

        Raises
        ------
        ValueError
            When inputs are missing, cannot have their type at all, or the version has no numbers for intervals.
        AccessDenied
            When the access policy does not grant `predict` on the model to who speaks.
        """
        if isinstance(rows, pl.LazyFrame | Mapping):
            raise TypeError(f"wanted a frame of Polars or pandas, found {type(rows).__name__}: collect it, or make one of it")
        frame = rows if isinstance(rows, pl.DataFrame) else pl.from_pandas(rows)
        if missing := [one.name for one in self.manifest.inputs if one.required and one.name not in frame.columns]:
            raise ValueError(
                f"{self.name} wants {', '.join(missing)}; the rows have {', '.join(frame.columns) or 'no columns'}"
            )
        if explain < 0:
            raise ValueError(f"explain: wanted a number of features, found {explain}")
        if as_of is not None and as_of.tzinfo is None:
            raise ValueError(f"as_of: wanted an instant with time zone, found {as_of}; e.g. .replace(tzinfo=UTC)")
        if (guard := bound_lake(self.settings, "notebook").guard) is not None:
            guard.check("predict", f"model:{self.name}")
        scorer = self._frame_scorer(as_of or datetime.now(UTC))
        parts = [self._answered(scorer, part, explain, interval) for part in frame.iter_slices(CHUNK_ROWS)]
        if not parts:
            parts = [self._answered(scorer, frame, explain, interval)]
        answered = pl.concat(parts)
        refused = answered.height - answered.get_column("score").count()
        record_event(
            self.settings.audit_dir,
            self.settings.keys_dir,
            "predicted in a notebook",
            f"{self.name} version {self.version}: {answered.height} rows, {refused} refused",
        )
        if clash := [name for name in frame.columns if name in answered.columns]:
            raise ValueError(f"the rows have a column '{clash[0]}', as the answers do: rename it")
        return frame.hstack(answered)

    def training_set(self) -> pl.DataFrame:
        """The labelled rows that the version learned from and was judged on, with features as of each row's timestamp.

        Raises
        ------
        ml_platform.lake.errors.LakeError
            When that version of the table is no longer kept.
        """
        made_of = self.manifest.provenance
        lake = bound_lake(self.settings, "notebook")
        return lake.read(made_of.training_set, version=made_of.training_set_version).collect()

    def split(self) -> Parts:
        """The training set divided as the project's `defs.yaml` says now: train, validation and holdout, by time.

        Raises
        ------
        LookupError
            When the project no longer declares the model.
        ValueError
            When a part is left without rows.
        """
        return split_by_time(self.training_set(), declared_model(current_project().defs, self.name).spec)

    def score_features(self, rows: pl.DataFrame) -> np.ndarray:
        """Score rows that have the model's features, such as those of a training set: (rows,) or (rows × classes)."""
        return score_frame(self.scorer, rows)

    def performance(self) -> pl.DataFrame:
        """Metrics by day and version, of answers whose labels came; empty before the first."""
        lake = bound_lake(self.settings, "notebook")
        if not lake.exists(PERFORMANCE_TABLE):
            return pl.DataFrame()
        rows = lake.read(PERFORMANCE_TABLE).filter(pl.col("model") == self.name).sort("date", "version")
        return rows.collect()

    def drift(self) -> pl.DataFrame:
        """Recorded drift, a row for each window and column; empty before the first."""
        return drift_history(bound_lake(self.settings, "notebook"), self.name)

    def versions(self) -> pl.DataFrame:
        """Every version of the model that the release store knows: number, stage, metric, when it was trained."""
        rows = []
        for one in all_facts(ReleaseStore(self.settings.releases_dir), self.name):
            metric = one.metrics.get(one.metric) if one.metric else None
            span = {"trained_from": one.trained_from, "trained_until": one.trained_until, "rows": one.training_rows}
            rows.append({"version": one.version, "stage": one.stage, "serving": one.serving, "family": one.family,
                         "metric": one.metric, "holdout": metric, "passed": one.passed, **span})  # fmt: skip
        return pl.DataFrame(rows, schema=_VERSIONS).sort("version")

    def _frame_scorer(self, now: datetime) -> FrameScorer:
        options = ScoringOptions(self.manifest.as_of, now=now, where="the rows")
        if not self.manifest.lookups:
            return FrameScorer(self.scorer, [], options)
        lake = Lake(self.settings.lake_uri)
        which = "latest" if self.manifest.as_of is None else "point-in-time"
        pins, used = view_pins(lake, self.manifest, lambda: self.views)
        indexes = lookup_indexes(lake, self.manifest, used, pins, which)
        return FrameScorer(self.scorer, indexes, options)

    def _answered(self, scorer: FrameScorer, part: pl.DataFrame, explain: int, interval: float | None) -> pl.DataFrame:
        wanted = {one.name for one in self.manifest.inputs}
        absent = [pl.lit(None).alias(name) for name in wanted if name not in part.columns]
        scored = scorer.score(part.with_columns(absent))
        score, prediction = answers(self.manifest, scored.scores)
        columns: list[pl.Series] = [score, prediction]
        if interval is not None:
            store = ReleaseStore(self.settings.releases_dir)
            conformal = conformal_of(store, self.manifest, Target(version=self.version, digest=self.digest), interval)
            columns += interval_columns(self.manifest, conformal, interval, scored.scores)
        if explain:
            columns += scorer.explain(scored.matrix, explain)
        answered = pl.DataFrame([scored.rows.get_column(ROW).cast(pl.Int64), *columns, scored.flags])
        places = pl.DataFrame({ROW: pl.int_range(part.height, eager=True)})
        return places.join(answered, on=ROW, how="left", maintain_order="left").join(
            _reasons(scored), on=ROW, how="left", maintain_order="left"
        ).drop(ROW)  # fmt: skip


def open_model(
    reference: str, *, settings: Settings | None = None, views: Mapping[str, FeatureView] | None = None
) -> ModelHandle:
    """Open a model of the project by name, `flight_delay` for the champion or `flight_delay@v3`.

    Parameters
    ----------
    reference
        The model, and which version of it.
    settings, views
        The project's own when absent.

    Raises
    ------
    LookupError
        When there is no such model or version, with those that there are.
    ValueError
        When the reference is none.
    """
    settings = settings or Settings()
    model = ModelReference.read(reference)
    target = model.resolve(ReleaseStore(settings.releases_dir))
    known = load_views(current_project().defs / "features") if views is None else views
    return ModelHandle(model.model, target.version, target.digest, settings, known)


def _reasons(scored: ScoredRows) -> pl.DataFrame:
    rows: dict[int, list[str]] = {}
    for one in scored.refused:
        rows.setdefault(one.row, []).append(f"{one.field}: {one.message}")
    return pl.DataFrame(
        {ROW: list(rows), "refused": ["; ".join(reasons) for reasons in rows.values()]},
        schema={ROW: pl.Int64, "refused": pl.String},
    )
