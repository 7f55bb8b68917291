"""Scores the rows of a frame by one version: types, contract, derived features, look-ups, matrix, ONNX Runtime.

All batch scoring is made of this: the asset `predictions`, `ml-platform score` and `predict` in SQL. A row is scored
exactly when serving would answer a request with its values; the others are told, each with what is wrong.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from ml_platform.features.expressions.columns import compile_columns
from ml_platform.features.point_in_time.lookup_index import LookupIndex
from ml_platform.features.training_sets.feature_definitions import derived_features
from ml_platform.features.training_sets.refused_values import RefusedValue, derive_possible
from ml_platform.features.training_sets.spine_values import typed_inputs
from ml_platform.features.views.declared_types import DTYPES, UTC_MICROSECONDS
from ml_platform.inference.checked_rows import flagged_values, flags_column, refused_values
from ml_platform.inference.explain import describe
from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.inference.missing_values import infinite_as_missing
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.contracts.conversion import WITH_OFFSET, typed
from ml_platform.registry.input_contract import TYPES, defaults_of
from ml_platform.registry.manifest import Feature, Input, Manifest
from ml_platform.spec.input_rules import FieldType

ROW = "__row"  # position of a row in the frame that was given
AT = "__instant"
TEXTS: tuple[FieldType, ...] = ("integer", "number", "boolean", "timestamp")
EXPLANATION = pl.List(pl.Struct({"feature": pl.String, "contribution": pl.Float64}))


class Refusal(NamedTuple):
    """One value for which a row is not scored."""

    row: int  # position in the frame
    field: str
    kind: str
    message: str


@dataclass(frozen=True)
class ScoredRows:
    """What became of a frame's rows: scored, refused, or outside the span that was asked for."""

    rows: pl.DataFrame  # those scored: `ROW`, `AT`, typed inputs, derived features, other columns of the source
    scores: np.ndarray  # (rows,), or (rows × classes)
    matrix: np.ndarray  # (rows × features, float64)
    flags: pl.Series  # see `checked_rows.FLAGS`
    refused: list[Refusal]
    refused_rows: int
    flagged: list[tuple[str, str]]  # field and kind of each flagged value
    outside: int
    features: Callable[[], pl.DataFrame] = field(repr=False)  # columns as tables of scored rows keep them


@dataclass(frozen=True)
class ScoringOptions:
    """How rows are read, beside what the manifest says.

    Attributes
    ----------
    timestamp
        Column with the instant of a row; without one, and where it is null, rows are scored as of `now`.
    now
        Instant (UTC) of rows without one.
    span
        Score only rows with start ≤ instant < end.
    id_column
        Column without which a row is refused.
    where
        What gives the rows, for messages.
    texts
        Types of which texts stand for values: `TEXTS` for CSV, which has nothing but texts.
    """

    timestamp: str | None
    now: datetime
    span: tuple[datetime, datetime] | None = None
    id_column: str | None = None
    texts: Collection[FieldType] = ()
    where: str = "the rows"


class FrameScorer:
    """One version, ready to score frames.

    Parameters
    ----------
    scorer
        The version's bundle.
    lookups
        Index of each of the manifest's look-ups, in their order.
    options
        How rows are read.
    score
        Scores a matrix as `scorer.score` does; that itself when None.
    """

    def __init__(
        self,
        scorer: Scorer,
        lookups: Sequence[LookupIndex],
        options: ScoringOptions,
        *,
        score: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        manifest = scorer.manifest
        self.scorer, self.manifest, self._options = scorer, manifest, options
        self._score_matrix = score or scorer.score
        own_instants = {one.name for one in manifest.inputs} | {one.name for one in manifest.derived}
        instant = options.timestamp
        is_further = instant is not None and instant not in own_instants  # a column of the source alone
        self._typed = (*manifest.inputs, *([Input(name=instant, type="timestamp")] if is_further and instant else []))
        self._kinds = {one.name: str(one.type) for one in manifest.inputs}
        self._features = compile_columns([(feature.name, feature.tree) for feature in manifest.derived])
        positions = {feature.name: place for place, feature in enumerate(manifest.features)}
        looked_up = {name for index in lookups for name in index.names}
        own = [feature for feature in manifest.features if feature.name not in looked_up]
        self._own = FeatureEncoder(own)
        self._own_places = _places([positions[feature.name] for feature in own])
        by_name = {feature.name: feature for feature in manifest.features}
        self._lookups = [
            (
                index,
                _places([positions[name] for name in index.names]),
                _encoded(index, [by_name[name] for name in index.names]),
            )
            for index in lookups
        ]

    def score(self, rows: pl.DataFrame) -> ScoredRows:
        """Score the rows of a frame that has the inputs, by whatever types, and the timestamp.

        Raises
        ------
        ValueError
            When a column cannot have the declared type at all.
        """
        refused_inputs: list[RefusedValue] = []
        manifest, outside = self.manifest, 0
        numbered = rows.with_row_index(ROW)
        if (id_column := self._options.id_column) is not None:
            missing = numbered.filter(pl.col(id_column).is_null()).get_column(ROW)
            refused_inputs += [RefusedValue(str(row), id_column, "null", "wanted an id, found null") for row in missing]
        if self._options.texts:
            numbered = self._read_texts(numbered, refused_inputs)
        inputs = typed_inputs(
            numbered, self._typed, defaults_of(manifest.inputs),
            id_column=ROW, where=self._options.where, refused=refused_inputs,
        )  # fmt: skip
        derived = self._derived(inputs, refused_inputs)
        if self._options.span is not None:
            derived, refused_inputs, outside = self._inside(derived, refused_inputs, rows.height)
        kept = _without(derived, {int(value.id) for value in refused_inputs})
        broken = refused_values(kept, manifest.inputs)
        refused = [Refusal(int(value.id), value.field, value.kind, value.message) for value in refused_inputs]
        if broken:
            places = kept.get_column(ROW)
            refused += [Refusal(int(places[one.row]), one.field, one.kind, one.message) for one in broken]
            kept = _without(kept, {one.row for one in refused})
        flagged = flagged_values(kept, manifest.inputs)
        kept = kept.with_columns(self._instants(kept).alias(AT))
        matrix, found = self._matrix(kept)
        return ScoredRows(
            rows=kept,
            scores=self._score_matrix(matrix) if kept.height else self._no_scores(),
            matrix=matrix,
            flags=flags_column(flagged, kept.height),
            refused=refused,
            refused_rows=len({one.row for one in refused}),
            flagged=[(flag.field, flag.kind) for flag in flagged],
            outside=outside,
            features=lambda: self._feature_columns(kept, found),
        )

    def explain(self, matrix: np.ndarray, top: int) -> tuple[pl.Series, pl.Series]:
        """The columns `base` and `explanation`: the features that add most to each raw score, the largest first.

        Raises
        ------
        ValueError
            When the version's graph has no explanations.
        """
        explainer = self.scorer.explainer()
        if explainer is None:
            raise ValueError(
                f"{self.manifest.model}: this version's graph has no explanations; train it again by a family of the "
                "engine, or leave --explain out"
            )
        names = [feature.name for feature in self.manifest.features]
        explained = explainer.explain(infinite_as_missing(matrix))
        raw = explained.base + explained.contributions.sum(axis=2)
        base, rows = [], []
        for row, target in enumerate(raw.argmax(axis=1).tolist()):
            one = describe(names, explained.base[target], explained.contributions[row, target])
            base.append(one["base"])
            most = list(one["contributions"].items())[:top]
            rows.append([{"feature": name, "contribution": value} for name, value in most])
        return pl.Series("base", base, dtype=pl.Float64), pl.Series("explanation", rows, dtype=EXPLANATION)

    def _read_texts(self, rows: pl.DataFrame, refused_inputs: list[RefusedValue]) -> pl.DataFrame:
        """Read texts as values of the inputs' types, by the rules of a contract; null where a text is none."""
        columns = []
        for one in self._typed:
            if rows.schema[one.name] != pl.String or one.type not in self._options.texts:
                continue
            read = typed(one.name, pl.String(), DTYPES[one.type], {})
            if one.type == "timestamp":  # of another place on the time line for each time zone, so not guessed
                read = pl.when(pl.col(one.name).str.strip_chars().str.contains(WITH_OFFSET)).then(read)
            columns.append(read)
            values = rows.select(pl.col(one.name).alias("text"), read.alias("value"), ROW)
            lost = values.filter(pl.col("value").is_null() & pl.col("text").is_not_null())
            refused_inputs += [
                RefusedValue(str(row), one.name, "type", f"wanted {TYPES[one.type]}, found {text!r}")
                for text, _, row in lost.iter_rows()
            ]
        return rows.with_columns(columns)

    def _derived(self, rows: pl.DataFrame, refused_inputs: list[RefusedValue]) -> pl.DataFrame:
        """Add the derived features, in the order of the rows; those without any are told and left out."""
        if not self._features:
            return rows
        bad = {int(value.id) for value in refused_inputs}
        if not bad:
            return derive_possible(rows, self._derive, id_column=ROW, refused=refused_inputs)
        # What is null for being refused may have no features: it is told once, as what it is.
        others = derive_possible(
            rows.filter(pl.col(ROW).is_in(list(bad))), self._derive, id_column=ROW, refused=list[RefusedValue]()
        )
        derived = derive_possible(_without(rows, bad), self._derive, id_column=ROW, refused=refused_inputs)
        return pl.concat([derived, others]).sort(ROW)

    def _derive(self, rows: pl.DataFrame) -> pl.LazyFrame:
        return derived_features(rows, self._kinds, self.manifest.derived, self._features).lazy()

    def _inside(
        self, derived: pl.DataFrame, refused_inputs: list[RefusedValue], given: int
    ) -> tuple[pl.DataFrame, list[RefusedValue], int]:
        """Rows of the span, refusals of rows that may be of it, and the number of those that are not."""
        assert self._options.span is not None
        assert self._options.timestamp is not None
        start, end = self._options.span
        at = pl.col(self._options.timestamp)
        inside = derived.filter(at.is_between(start, end, closed="left"))
        known = set(inside.get_column(ROW).to_list())
        placed = set(derived.get_column(ROW).to_list())
        # A row is told where its instant is not known: for every span.
        unplaced = {int(value.id) for value in refused_inputs} - placed
        refused_inputs = [value for value in refused_inputs if int(value.id) in known or int(value.id) in unplaced]
        return inside, refused_inputs, given - len(known | unplaced)

    def _instants(self, rows: pl.DataFrame) -> pl.Series:
        now = pl.lit(self._options.now.astimezone(UTC), dtype=UTC_MICROSECONDS)
        if self._options.timestamp is None:
            return rows.select(now.alias(AT)).to_series().new_from_index(0, rows.height)
        return rows.select(pl.col(self._options.timestamp).cast(UTC_MICROSECONDS).fill_null(now)).to_series()

    def _matrix(self, rows: pl.DataFrame) -> tuple[np.ndarray, list[np.ndarray]]:
        matrix = np.empty((rows.height, len(self.manifest.features)))
        matrix[:, self._own_places] = self._own.transform(rows)
        unplaced_rows = []
        at = rows.get_column(AT)
        for index, places, encoded in self._lookups:
            positions = index.find(rows, at)  # -1, of no row, is the last row: missing
            matrix[:, places] = encoded[positions]
            unplaced_rows.append(positions)
        return infinite_as_missing(matrix), unplaced_rows

    def _feature_columns(self, rows: pl.DataFrame, found: Sequence[np.ndarray]) -> pl.DataFrame:
        values: dict[str, pl.Series] = {}
        for (index, _, _), positions in zip(self._lookups, found, strict=True):
            places = pl.Series(np.where(positions < 0, index.values.height, positions)).cast(pl.UInt32)
            padded = pl.concat([index.values, _nulls(index.values)])
            values |= {name: padded.get_column(name).gather(places) for name in index.names}
        columns = []
        for feature in self.manifest.features:
            column = values[feature.name] if feature.name in values else rows.get_column(feature.name)
            columns.append(column.cast(pl.String if feature.kind == "categorical" else pl.Float64).alias(feature.name))
        return pl.DataFrame(columns)

    def _no_scores(self) -> np.ndarray:
        return np.empty((0, len(self.manifest.classes)) if self.manifest.task == "multiclass" else 0)


def answers(manifest: Manifest, scores: np.ndarray) -> tuple[pl.Series, pl.Series]:
    """Make the columns `score` and `prediction` of scores (rows,) or (rows × classes)."""
    if manifest.task == "multiclass":
        best = scores.argmax(axis=1) if len(scores) else np.empty(0, dtype=np.int64)
        names = [str(manifest.classes[position]) for position in best]
        top = scores.max(axis=1) if len(scores) else np.empty(0)
        return pl.Series("score", top, dtype=pl.Float64), pl.Series("prediction", names, dtype=pl.String)
    score = pl.Series("score", scores, dtype=pl.Float64)
    if manifest.task == "binary":
        return score, pl.Series("prediction", scores >= manifest.threshold, dtype=pl.Boolean)
    return score, score.alias("prediction")


def input_types(manifest: Manifest) -> Mapping[str, pl.DataType]:
    """Input → the type that its declared one has in a frame."""
    return {one.name: DTYPES[one.type] for one in manifest.inputs}


def _places(positions: list[int]) -> list[int] | slice:
    """Columns of a matrix; as a slice, which is written several times as fast, where they are neighbours."""
    first = min(positions, default=0)
    return (
        slice(first, first + len(positions)) if positions == list(range(first, first + len(positions))) else positions
    )


def _encoded(index: LookupIndex, features: Sequence[Feature]) -> np.ndarray:
    """Matrix of an index's rows, and one row more for what was not found."""
    encoder = FeatureEncoder(features)
    return np.concatenate([encoder.transform(index.values), encoder.transform(_nulls(index.values))])


def _nulls(values: pl.DataFrame) -> pl.DataFrame:
    """One row of nulls."""
    return pl.DataFrame({name: [None] for name in values.columns}, schema=values.schema)


def _without(rows: pl.DataFrame, numbers: set[int]) -> pl.DataFrame:
    return rows if not numbers else rows.filter(~pl.col(ROW).is_in(list(numbers)))
