"""Adds to predictions, on request, the interval or set of classes that holds the truth in a wanted share of cases."""

from collections.abc import Sequence
from typing import Any, Self

import msgspec

from ml_platform.inference.intervals import interval_bounds, set_cutoff
from ml_platform.registry.adapted_conformal import load_adapted
from ml_platform.registry.manifest import Conformal, Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.serving.http.messages import Refused

_REMEMBERED = 64  # levels


class Interval(msgspec.Struct, frozen=True, gc=False):
    """Where a regression's value is in the wanted share of cases."""

    lower: float
    upper: float
    width: float


class IntervalLevel(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of which level the intervals or sets of an answer are, and of which rows their numbers."""

    level: float
    adapted: bool  # to labels that came after the release
    last: str  # newest row that counted (UTC)


class Intervals:
    """Makes intervals or sets of one version; numbers of a level are computed once."""

    def __init__(self, manifest: Manifest, conformal: Conformal, *, adapted: bool) -> None:
        self._conformal, self._adapted = conformal, adapted
        self._is_value = manifest.task == "regression"
        self._classes = manifest.classes
        self._levels: dict[float, tuple[IntervalLevel, float, float]] = {}

    @classmethod
    def load(cls, store: ReleaseStore, digest: str, manifest: Manifest) -> Self | None:
        """Take the numbers that follow the labels, else the manifest's; None where there are neither.

        Raises
        ------
        DocumentUnreadable
            When the document of the former is damaged.
        """
        adapted = load_adapted(store, digest)
        conformal = manifest.conformal if adapted is None else adapted.conformal
        return None if conformal is None else cls(manifest, conformal, adapted=adapted is not None)

    def add(self, predictions: Sequence[Any], level: float) -> tuple[IntervalLevel, float]:
        """Put an interval or a set into each prediction.

        Returns
        -------
        tuple
            What the level stands for, and the sum of the widths, in the target's unit, or of the sets' sizes.
        """
        told, low, high = self._levels.get(level) or self._remember(level)
        if self._is_value:
            width = high - low
            for prediction in predictions:
                value = prediction.prediction
                prediction.interval = Interval(value + low, value + high, width)
            return told, width * len(predictions)
        total = 0
        for prediction in predictions:
            classes = self._binary(prediction, low) if not self._classes else self._several(prediction, low)
            prediction.prediction_set = classes
            total += len(classes)
        return told, total

    def _binary(self, prediction: Any, cutoff: float) -> list[Any]:
        probability = prediction.probability
        rest = 1 - probability
        chosen: list[Any] = [False] if rest >= cutoff else []
        if probability >= cutoff:
            chosen.append(True)
        return chosen or [probability > rest]

    def _several(self, prediction: Any, cutoff: float) -> list[Any]:
        scores = prediction.probabilities.values()
        chosen = [name for name, score in zip(self._classes, scores, strict=True) if score >= cutoff]
        return chosen or [prediction.prediction]

    def _remember(self, level: float) -> tuple[IntervalLevel, float, float]:
        if len(self._levels) >= _REMEMBERED:
            self._levels.clear()
        told = IntervalLevel(level, self._adapted, self._conformal.last)
        bounds = (
            interval_bounds(self._conformal, level) if self._is_value else (set_cutoff(self._conformal, level), 0.0)
        )
        found = self._levels[level] = (told, *bounds)
        return found


def without_intervals(manifest: Manifest, version: int) -> Refused:
    """Say that a version has no intervals, and what would give it some."""
    return Refused(
        422,
        "no_intervals",
        f"version {version} of '{manifest.model}' has no numbers for intervals: it was made by an engine that kept "
        "none, or had fewer than 100 holdout rows. A version that is trained now on more has them; labels that "
        "come give them too, by ml-platform recalibrate",
    )
