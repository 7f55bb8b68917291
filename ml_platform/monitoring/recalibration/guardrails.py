"""The guardrails of a version of which only the calibration is new: those that a calibration can break."""

from ml_platform.monitoring.recalibration.judge import Judgement
from ml_platform.monitoring.recalibration.labelled_answers import guarded_columns
from ml_platform.spec.guardrails import GuardrailName, columns_of_set
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import GuardrailResult
from ml_platform.training.evaluation.contenders import Contender, JudgedRows, contender
from ml_platform.training.evaluation.guardrails.calibration import calibration_guardrail
from ml_platform.training.evaluation.guardrails.fairness import fairness_guardrails
from ml_platform.training.evaluation.guardrails.result import not_applicable, not_computed
from ml_platform.training.evaluation.guardrails.slices import group_results, slice_guardrails
from ml_platform.training.evaluation.guardrails.stability import stability_guardrails

_OF_THE_ORDER = {"roc_auc", "average_precision"}  # which a calibration of a binary model leaves as it is


def recalibration_guardrails(
    spec: ModelSpec, judgement: Judgement, threshold: float | None, champion_version: int
) -> tuple[GuardrailResult, ...]:
    """Hold a new calibration to the bounds under `promotion`, on the labelled answers that it was judged on.

    Groups that lose, calibration, fairness, and how much changes for those who ask. Not the holdout's rows, the views
    and the strongest feature, which a calibration does not touch. Parity, latency and size are known once it is made.

    Parameters
    ----------
    spec
        The model: its bounds.
    judgement
        Labels, scores as served and calibrated anew, and the day of each row, which are the blocks.
    threshold
        Probability from which the answer is true.
    champion_version
        What serves.
    """
    absent = sorted(set(guarded_columns(spec)) - set(judgement.groups.columns))
    known = spec.model_copy(update={"promotion": _without(spec, absent)})
    rows = JudgedRows(judgement.groups, judgement.y, judgement.blocks)
    champion, own = (contender(spec, judgement.y, score, threshold) for score in judgement.scores)
    return (
        *_slices(known, rows, own, champion, champion_version),
        *calibration_guardrail(spec, rows, own),
        *fairness_guardrails(known, rows, own),
        *_lacking(spec, absent),
        *stability_guardrails(spec, rows, own, champion),
    )


def _slices(
    spec: ModelSpec, rows: JudgedRows, own: Contender, champion: Contender, version: int
) -> list[GuardrailResult]:
    promotion = spec.promotion
    if promotion.slices and spec.task == "binary" and spec.metric in _OF_THE_ORDER:
        why = f"the rows keep their order, so {spec.metric} of every group is the champion's"
        return [not_applicable(promotion, "slices", promotion.max_slice_loss, why)]
    return slice_guardrails(spec, f"champion (version {version})", group_results(spec, rows, own, champion))


def _without(spec: ModelSpec, absent: list[str]) -> object:
    """The rules without groups that nothing is known of."""

    def known(sets: tuple[str | tuple[str, ...], ...]) -> tuple[str | tuple[str, ...], ...]:
        return tuple(one for one in sets if not set(columns_of_set(one)) & set(absent))

    promotion, fairness = spec.promotion, spec.promotion.guardrails.fairness
    guardrails = promotion.guardrails
    if fairness is not None:
        columns = known(fairness.columns)
        kept = fairness.model_copy(update={"columns": columns}) if columns else None
        guardrails = guardrails.model_copy(update={"fairness": kept})
    return promotion.model_copy(update={"slices": known(promotion.slices), "guardrails": guardrails})


def _lacking(spec: ModelSpec, absent: list[str]) -> list[GuardrailResult]:
    """What cannot be computed, since answers were recorded without the columns."""
    promotion, fairness = spec.promotion, spec.promotion.guardrails.fairness
    wanted: list[tuple[GuardrailName, float | None, tuple[str | tuple[str, ...], ...]]] = []
    if spec.task != "binary" or spec.metric not in _OF_THE_ORDER:
        wanted.append(("slices", promotion.max_slice_loss, promotion.slices))
    if fairness is not None:
        wanted += [
            ("selection_rate", fairness.max_selection_difference, fairness.columns),
            ("true_positive_rate", fairness.max_true_positive_difference, fairness.columns),
        ]
    return [
        not_computed(
            promotion,
            name,
            bound,
            f"{', '.join(columns)}: neither an input nor a recorded feature, so that nothing is known of the answers' "
            "groups",
            of=", ".join(columns_of_set(one)),
        )
        for name, bound, sets in wanted
        for one in sets
        if (columns := sorted(set(columns_of_set(one)) & set(absent)))
    ]
