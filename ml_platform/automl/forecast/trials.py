"""Trials of a forecast: fitted on rolling origins, measured beside the bars, the gain over a bar with its interval."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml_platform.automl.documents import ENSEMBLE, Entry, Member, Plan
from ml_platform.automl.ensemble import blended, select_ensemble
from ml_platform.automl.forecast.plain_backtest import bar_forecasts, known_rows, rows_of_origins
from ml_platform.automl.forecast.rows import ForecastRows, forecast_of
from ml_platform.automl.forecast_documents import BARS, SEASONAL_NAIVE, SERIES_MEAN, ForecastResult, StepError
from ml_platform.automl.frame import feature_infos
from ml_platform.automl.plain.metrics import METRICS
from ml_platform.automl.trials import CONFIDENCE, FittedTrial, export_trials, trials_in_time
from ml_platform.spec.model import ModelSpec
from ml_platform.training.candidate_fit import Fitted, NotExportable, fit_candidate
from ml_platform.training.documents import Trial
from ml_platform.training.evaluation.cluster_interval import ClusterInterval, gain_interval, metric_interval


@dataclass(frozen=True)
class Measured:
    """A leaderboard entry and the forecasts it was measured on."""

    entry: Entry
    forecast: np.ndarray


def backtest_trials(
    plan: Plan,
    data: ForecastRows,
    spec: ModelSpec,
    trials: Sequence[Trial],
    *,
    until: float,
    tell: Callable[[str], None] = lambda _: None,
) -> list[FittedTrial]:
    """Fit trials once for each fold of the backtest, on what was known at its first origin.

    Parameters
    ----------
    plan, data, spec
        As planned.
    trials
        Best first; the best of each family are fitted in any case.
    until
        Instant of `time.perf_counter` after which no further trial of a family that has one is fitted.
    tell
        Gets one line for each.

    Returns
    -------
    list of FittedTrial
        `holdout` are the forecasts of the backtest's rows; `fitted` is a fit on all rows, which would serve now.
    """
    own, done = forecast_of(plan), list[FittedTrial]()
    validation = data.rows.frame[data.rows.parts[1]]
    for trial in trials_in_time(trials, until):
        early = _fit(plan, data, spec, trial, own.validation[0]).predict(validation)
        parts = []
        for fold in own.folds:
            rows = data.rows.frame[rows_of_origins(data.table, list(fold.origins))]
            if rows.height:
                parts.append(_fit(plan, data, spec, trial, fold.origins[0]).predict(rows))
        started = time.perf_counter()
        fitted = _fit(plan, data, spec, trial, own.last)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        fitted.predict(validation)
        each = 1e6 * (time.perf_counter() - started) / validation.height
        name = f"{trial.family}-{trial.number}"
        done.append(FittedTrial(name, trial, early, np.concatenate(parts), fitted, seconds, each))
        tell(f"{name}: validation {trial.score:.5f}, {len(own.folds)} fits of about {seconds:.1f} s")
    return done


def measure_trials(plan: Plan, data: ForecastRows, trials: Sequence[FittedTrial]) -> tuple[list[Measured], str]:
    """Measure trials, their ensemble and the bars; and say what there is to say of the ensemble."""
    y, metric = data.rows.y[data.rows.parts[1]], METRICS[plan.metric]
    measured = [_of_trials(plan, data, one.name, [one], [1.0], one.validation, one.holdout) for one in trials]
    scores = {one.name: one.validation for one in trials}
    weights = select_ensemble(scores, lambda score: metric(y, score), higher_is_better=False)
    together = blended(scores, weights)
    if len(weights) > 1 and metric(y, together) < min(one.entry.validation for one in measured):
        chosen = [next(one for one in trials if one.name == name) for name in weights]
        forecast = blended({one.name: one.holdout for one in chosen}, weights)
        measured.append(_of_trials(plan, data, ENSEMBLE, chosen, list(weights.values()), together, forecast))
        weights_text = ", ".join(f"{weight:.2f} {name}" for name, weight in weights.items())
        note = (
            f"The ensemble ({weights_text}) was selected on the validation origins, where it looks better than it is."
        )
    else:
        note = "No average of several trials is better on the validation origins than the best trial alone."
    bars = bar_forecasts(data.table[data.rows.parts[1]])
    why = "a bar to beat, which needs no model"
    for name in BARS:
        figures = {"fit_seconds": 0.0, "predict_us": 0.0, "size_bytes": None, "not_exported": why}
        member = Member(trial=name, family=name, params={}, weight=1.0)
        measured.append(_measured(plan, data, name, (member,), bars[name], data.bars[name], figures))
    return measured, note


def judge(plan: Plan, data: ForecastRows, measured: Sequence[Measured]) -> ForecastResult:
    """Compare the best model by validation with the bars, over the origins of the backtest."""
    models = [one for one in measured if one.entry.trial not in BARS]
    best = min(models, key=lambda one: one.entry.validation)
    y, blocks = data.rows.y[data.rows.parts[2]], origin_blocks(data)
    gains = {
        bar: gain_interval(
            plan.metric, "regression", y, best.forecast, data.bars[bar], blocks=blocks, confidence=CONFIDENCE
        )
        for bar in BARS
    }
    naive = METRICS[plan.metric](y, data.bars[SEASONAL_NAIVE])
    words = [
        _gain_words(best.entry.trial, bar, plan.metric, gains[bar], METRICS[plan.metric](y, data.bars[bar]))
        for bar in BARS
    ]
    words.append(f"{plan.metric} {best.entry.holdout:.5g} is {_share(best.entry.holdout, naive)} of the naive one's.")
    if not _is_gain(gains[SEASONAL_NAIVE]):
        words.append("Do not replace the seasonal naive forecast by it on this evidence.")
    elif not _is_gain(gains[SERIES_MEAN]):
        words.append("It knows the level of the series, and nothing beyond it is shown.")
    return ForecastResult(
        verdict=" ".join(words),
        beats_naive=_is_gain(gains[SEASONAL_NAIVE]),
        beats_mean=_is_gain(gains[SERIES_MEAN]),
        model=best.entry.trial,
        steps=_step_errors(plan, data, best.forecast),
    )


def origin_blocks(data: ForecastRows) -> np.ndarray:
    """Number the origin of each of the backtest's rows: origins are a horizon apart, so that no label is in two."""
    return data.table[data.rows.parts[2]].get_column("origin").to_numpy()


def _fit(plan: Plan, data: ForecastRows, spec: ModelSpec, trial: Trial, origin: int) -> Fitted:
    own = forecast_of(plan)
    rows = data.rows.frame[known_rows(data.table, origin, own.stride, own.last)]
    return fit_candidate(spec, feature_infos(plan), rows, trial.family, trial.params)


def _of_trials(  # noqa: PLR0917 - private
    plan: Plan,
    data: ForecastRows,
    name: str,
    trials: Sequence[FittedTrial],
    weights: Sequence[float],
    validation: np.ndarray,
    forecast: np.ndarray,
) -> Measured:
    size, reason = None, ""
    try:
        size = len(export_trials(plan, data.rows, trials, weights))
    except NotExportable as error:
        reason = str(error)
    members = tuple(
        Member(trial=one.name, family=one.trial.family, params=one.trial.params, weight=weight)
        for one, weight in zip(trials, weights, strict=True)
    )
    figures = {
        "fit_seconds": sum(one.fit_seconds for one in trials),
        "predict_us": sum(one.predict_us for one in trials),
        "size_bytes": size,
        "not_exported": reason,
    }
    return _measured(plan, data, name, members, validation, forecast, figures)


def _measured(  # noqa: PLR0917 - private
    plan: Plan,
    data: ForecastRows,
    name: str,
    members: tuple[Member, ...],
    validation: np.ndarray,
    forecast: np.ndarray,
    figures: Mapping[str, float | int | str | None],
) -> Measured:
    metric = METRICS[plan.metric]
    y_validation, y = data.rows.y[data.rows.parts[1]], data.rows.y[data.rows.parts[2]]
    interval = metric_interval(
        plan.metric, "regression", y, forecast, blocks=origin_blocks(data), confidence=CONFIDENCE
    )
    entry = Entry.model_validate(
        {
            "trial": name,
            "members": members,
            "validation": metric(y_validation, validation),
            "holdout": metric(y, forecast),
            "lower": interval.lower if interval else None,
            "upper": interval.upper if interval else None,
            "notebook": f"{name}.ipynb",
            **figures,
        }
    )
    return Measured(entry, forecast)


def _step_errors(plan: Plan, data: ForecastRows, forecast: np.ndarray) -> tuple[StepError, ...]:
    y, metric = data.rows.y[data.rows.parts[2]], METRICS[plan.metric]
    step = data.table[data.rows.parts[2]].get_column("step").to_numpy()
    naive = data.bars[SEASONAL_NAIVE]
    return tuple(
        StepError(
            step=int(number),
            rows=int((step == number).sum()),
            best=metric(y[step == number], forecast[step == number]),
            seasonal_naive=metric(y[step == number], naive[step == number]),
        )
        for number in np.unique(step)
    )


def _is_gain(gain: ClusterInterval | None) -> bool:
    return gain is not None and gain.lower > 0


def _gain_words(model: str, bar: str, metric: str, gain: ClusterInterval | None, of_bar: float) -> str:
    name = {SEASONAL_NAIVE: "the seasonal naive forecast", SERIES_MEAN: "the mean of the series so far"}[bar]
    if gain is None:
        return f"{model} cannot be compared with {name}: fewer than two origins of the backtest have values."
    verb = "beats" if gain.lower > 0 else "is worse than" if gain.upper < 0 else "is not surely better than"
    share = f"{100 * CONFIDENCE:.0f} % interval"
    return (
        f"{model} {verb} {name} ({metric} {of_bar:.5g}): gain {gain.estimate:.4g}, {share} {gain.lower:.4g} to "
        f"{gain.upper:.4g} over {gain.blocks} origins."
    )


def _share(value: float, of: float) -> str:
    return f"{100 * value / of:.0f} %" if of > 0 else "more than all"
