"""A model that is too good, or became so at once, is shown to a person."""

import pytest

from ml_platform.training.documents import TrainedModel
from ml_platform.training.evaluation.plausibility import implausible, strongest_features
from ml_platform_tests.toy_world import Shops


@pytest.mark.parametrize(
    ("challenger", "naive", "champion", "said"),
    [
        (0.80, 0.5, None, []),
        (0.80, 0.5, 0.78, []),
        (0.991, 0.5, None, ["98.2% of what the naive baseline"]),
        (0.91, 0.5, 0.80, ["55% of what the champion"]),
        (0.80, 0.5, 1.0, []),
    ],
)
def test_what_is_too_good_against_the_naive_and_the_champion(
    trained_shops: tuple[Shops, TrainedModel], challenger: float, naive: float, champion: float | None, said: list[str]
) -> None:
    shops, trained = trained_shops
    trained = trained.model_copy(update={"training_set": trained.training_set.model_copy(update={"suspects": ()})})
    evaluation = shops.evaluate(trained).model_copy(
        update={
            "challenger": {"roc_auc": challenger},
            "naive": {"roc_auc": naive},
            "champion": None if champion is None else {"roc_auc": champion},
        }
    )
    reasons = implausible(shops.spec, trained, evaluation)
    assert len(reasons) == len(said)
    assert all(text in reason for text, reason in zip(said, reasons, strict=True))


def test_lower_is_better_is_measured_down_to_zero(trained_shops: tuple[Shops, TrainedModel]) -> None:
    shops, trained = trained_shops
    spec = shops.spec.model_copy(update={"promotion": shops.spec.promotion.model_copy(update={"metric": "log_loss"})})
    evaluation = shops.evaluate(trained).model_copy(
        update={"challenger": {"log_loss": 0.01}, "naive": {"log_loss": 0.6}, "champion": None}
    )
    assert "gains 98.3%" in implausible(spec, trained, evaluation)[0]


def test_suspects_of_the_training_set_are_told_where_the_release_is_decided(
    trained_shops: tuple[Shops, TrainedModel],
) -> None:
    shops, trained = trained_shops
    ref = trained.training_set.model_copy(
        update={"suspects": ("'duration' alone predicts the label (AUC 0.9700)",), "strength": {"duration": 0.97}}
    )
    suspicious = trained.model_copy(update={"training_set": ref, "importance": {"duration": 0.6, "weight": 0.4}})
    (reason,) = implausible(shops.spec, suspicious, shops.evaluate(trained))
    assert reason.startswith("'duration' alone predicts the label")
    assert strongest_features(suspicious) == [
        {"feature": "duration", "alone": 0.97, "importance": 0.6},
        {"feature": "weight", "alone": None, "importance": 0.4},
    ]
